//! The editor of `/etc/default/grub`, held against the shell that will read the file.

use proptest::prelude::*;

use super::super::{GrubFile, GrubFileProblem};
use super::*;

fn edited(text: &str, wanted: &str) -> String {
    let file = GrubFile::read(text.as_bytes()).unwrap();
    String::from_utf8(file.with(text.as_bytes(), &arguments(wanted))).unwrap()
}

#[test]
fn the_value_is_added_to_as_it_is_written() {
    for (before, after) in [
        (
            "GRUB_CMDLINE_LINUX=\"\"\n",
            "GRUB_CMDLINE_LINUX=\"iommu=pt\"\n",
        ),
        (
            "GRUB_CMDLINE_LINUX=\"a b\"",
            "GRUB_CMDLINE_LINUX=\"a b iommu=pt\"",
        ),
        (
            "GRUB_CMDLINE_LINUX=\"a \" # x\n",
            "GRUB_CMDLINE_LINUX=\"a iommu=pt\" # x\n",
        ),
        (
            "GRUB_CMDLINE_LINUX='a'\n",
            "GRUB_CMDLINE_LINUX='a iommu=pt'\n",
        ),
        (
            "GRUB_CMDLINE_LINUX=a\n",
            "GRUB_CMDLINE_LINUX=\"a iommu=pt\"\n",
        ),
        ("GRUB_CMDLINE_LINUX=\n", "GRUB_CMDLINE_LINUX=\"iommu=pt\"\n"),
        (
            "GRUB_CMDLINE_LINUX=a\\ b\n",
            "GRUB_CMDLINE_LINUX=a\\ b\" iommu=pt\"\n",
        ),
        (
            "GRUB_CMDLINE_LINUX=\"a\"\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX b\"\n",
            "GRUB_CMDLINE_LINUX=\"a\"\nGRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX b iommu=pt\"\n",
        ),
        (
            "# no value",
            "# no value\nGRUB_CMDLINE_LINUX=\"iommu=pt\"\n",
        ),
        ("", "GRUB_CMDLINE_LINUX=\"iommu=pt\"\n"),
        (
            "#GRUB_CMDLINE_LINUX=\"c\"\nA='\nA=\"q\"\n' \\\n",
            "#GRUB_CMDLINE_LINUX=\"c\"\nA='\nA=\"q\"\n' \\\n\nGRUB_CMDLINE_LINUX=\"iommu=pt\"\n",
        ),
    ] {
        assert_eq!(edited(before, "iommu=pt"), after);
    }
}

#[test]
fn files_that_need_a_shell_are_refused_with_their_line() {
    use GrubFileProblem::{ControlByte, ControlStructure, NotPlain, TooDeep, Unterminated};
    let deep = "A=".to_owned() + &"$(".repeat(100);
    for (text, line, problem) in [
        ("A=1\nif x; then\nfi\n", 2, ControlStructure),
        ("f() { x; }\n", 1, ControlStructure),
        ("cat <<E\nGRUB_CMDLINE_LINUX=x\nE\n", 1, ControlStructure),
        ("GRUB_CMDLINE_LINUX=\"$(cat /x)\"\n", 1, NotPlain),
        ("GRUB_CMDLINE_LINUX=`x`\n", 1, NotPlain),
        ("GRUB_CMDLINE_LINUX=\"${X:-y}\"\n", 1, NotPlain),
        ("GRUB_CMDLINE_LINUX=x command\n", 1, NotPlain),
        ("A=1 GRUB_CMDLINE_LINUX=x\n", 1, NotPlain),
        ("false && GRUB_CMDLINE_LINUX=x\n", 1, NotPlain),
        ("false &&\n\nGRUB_CMDLINE_LINUX=x\n", 3, NotPlain),
        ("true & \n |", 2, Unterminated),
        ("unset GRUB_CMDLINE_LINUX\n", 1, NotPlain),
        // It is only text, but to know that is to be a shell.
        ("A='\nGRUB_CMDLINE_LINUX=\"q\"\n'\n", 2, NotPlain),
        ("GRUB_CMDLINE_LINUX+=x\n", 1, NotPlain),
        ("A=1\n\nGRUB_CMDLINE_LINUX=\"a\n", 3, Unterminated),
        ("A=`x\n", 1, Unterminated),
        ("A=1\r\n", 1, ControlByte),
        ("A=1\n\0", 2, ControlByte),
        (&deep, 1, TooDeep),
    ] {
        let error = GrubFile::read(text.as_bytes()).unwrap_err();
        assert_eq!((error.line, error.problem), (line, problem), "{text:?}");
    }
}

#[test]
fn bytes_that_are_no_text_stay_as_they_are() {
    let before = b"# caf\xe9\nGRUB_THEME=\"\xff\xfe\"\nGRUB_CMDLINE_LINUX=\"a\"\n\x80";
    let file = GrubFile::read(before).unwrap();
    let after = file.with(before, &arguments("b"));
    let wanted = b"# caf\xe9\nGRUB_THEME=\"\xff\xfe\"\nGRUB_CMDLINE_LINUX=\"a b\"\n\x80";
    assert_eq!(after, wanted);
}

/// What the shell makes of a file: the two values and another one.
fn sourced(text: &[u8]) -> Vec<String> {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("grub");
    std::fs::write(&path, text).unwrap();
    let script = ". \"$1\"; printf '%s\\1%s\\1%s' \"$GRUB_CMDLINE_LINUX\" \
                  \"$GRUB_CMDLINE_LINUX_DEFAULT\" \"$OTHER\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&path)
        .env_clear()
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout).unwrap();
    said.split('\u{1}').map(str::to_owned).collect()
}

/// Lines as people and distributions write them, with values that have quotes in them.
fn line() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "[a-z=,.: ]{0,12}".prop_map(|v| format!("\"{v}\"")),
        "[a-z=$\"\\\\ ]{0,8}".prop_map(|v| format!("'{v}'")),
        "[a-z=,.]{0,8}",
        "[a-z]{1,4}".prop_map(|v| format!("{v}\\ {v}\"q\"'r'")),
        "[a-z]{1,4}".prop_map(|v| format!("\"{v} \\\"{v}\\\" \\\n{v}\"")),
        Just("\"$GRUB_CMDLINE_LINUX x\"".to_owned()),
        Just("\"${GRUB_CMDLINE_LINUX_DEFAULT} $GRUB_CMDLINE_LINUX y\"".to_owned()),
    ];
    let name = prop_oneof![
        3 => Just("GRUB_CMDLINE_LINUX"),
        1 => Just("GRUB_CMDLINE_LINUX_DEFAULT"),
        1 => Just("export GRUB_CMDLINE_LINUX"),
    ];
    prop_oneof![
        4 => (name, value).prop_map(|(name, value)| format!("{name}={value}")),
        1 => "# [ -~]{0,20}",
        1 => Just(String::new()),
        1 => Just("OTHER=\"$(echo 'a b' \"c'd\" $(echo \"e\"))\"".to_owned()),
        1 => Just("OTHER=`( echo x; echo \"${Y:-z}\" ) 2>/dev/null || echo w`".to_owned()),
        1 => Just("OTHER=\"$GRUB_CMDLINE_LINUX\"; OTHER='# no comment'".to_owned()),
        1 => Just("  OTHER=a#b  # a comment with \" and '".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_shell_sees_the_arguments_added_and_nothing_else_changed(
        lines in prop::collection::vec(line(), 0..8),
        ends_with_newline: bool,
    ) {
        let mut text = lines.join("\n");
        if ends_with_newline {
            text.push('\n');
        }
        let file = GrubFile::read(text.as_bytes()).unwrap();
        let after = file.with(text.as_bytes(), &arguments("intel_iommu=on iommu=pt"));

        let old = sourced(text.as_bytes());
        let new = sourced(&after);
        let both = format!("{} {}", old[0], old[1]);
        prop_assert_eq!(GrubFile::words([&file]), words_of(&both), "we read otherwise than sh");
        let mut wanted = words_of(&old[0]);
        wanted.extend(["intel_iommu=on".to_owned(), "iommu=pt".to_owned()]);
        prop_assert_eq!(words_of(&new[0]), wanted);
        // The others may be made of the first, and then have the arguments too.
        for (new, old) in [(&new[1], &old[1]), (&new[2], &old[2])] {
            let is_added = |word: &String| word == "intel_iommu=on" || word == "iommu=pt";
            let mut new = words_of(new);
            new.retain(|word| !is_added(word));
            prop_assert_eq!(new, words_of(old));
        }

        // Everything but one line is there, byte for byte and in order.
        let after = String::from_utf8(after).unwrap();
        let kept = text.lines().filter(|line| after.lines().any(|other| other == *line)).count();
        prop_assert!(kept + 1 >= text.lines().count());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(text in prop::collection::vec(
        prop::sample::select(b"GRUB_CMDLINE_LINUX= \n\t\"'\\`$(){}#;&|<\0a\xff".to_vec()), 0..64))
    {
        crate::fuzz::fuzz_grub_file(&text);
        let whole = [b"GRUB_CMDLINE_LINUX=", text.as_slice()].concat();
        crate::fuzz::fuzz_grub_file(&whole);
    }
}
