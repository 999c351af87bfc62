use std::fmt::Write as _;

use model::{Filter, PciAddress, PfItem};
use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Config {
    read_config(text.as_bytes(), "intel.com").unwrap()
}

fn one(pool: &str) -> Pool {
    let config = read(&format!(r#"{{"resourceList": [{pool}]}}"#));
    assert_eq!(config.refused, []);
    config.pools.into_iter().next().unwrap()
}

/// Writes a whole configuration: pools, refusals and notes.
fn text(config: &Config) -> String {
    let mut text = String::new();
    for pool in &config.pools {
        let mut words = Vec::new();
        for (word, set) in [
            ("no-topology", pool.exclude_topology),
            ("iommufd", pool.iommufd),
            ("pf-link", pool.health.pf_link),
            ("node's-too", pool.offer_used_by_node),
        ] {
            words.extend(set.then(|| word.to_owned()));
        }
        words.extend(pool.preference.map(|preference| format!("{preference:?}")));
        words.extend(pool.classes.iter().map(|class| format!("class {class}")));
        words.extend(pool.extra.as_ref().map(|extra| format!("{extra:?}")));
        writeln!(text, "{} {} {}", pool.resource, pool.kind, words.join(" ")).unwrap();
        for selector in &pool.selectors {
            let filters: Vec<String> = selector.filters.iter().map(ToString::to_string).collect();
            let vhost = if selector.vhost_net { " +vhost" } else { "" };
            writeln!(text, "  - {}{vhost}", filters.join(", ")).unwrap();
        }
    }
    for refused in &config.refused {
        let name = refused.resource.as_deref().unwrap_or("?");
        writeln!(text, "refused {} {name}", refused.index).unwrap();
        for problem in &refused.problems {
            writeln!(text, "  {problem} ({})", problem.remedy).unwrap();
        }
    }
    for note in &config.notes {
        writeln!(text, "note {note} ({})", note.remedy).unwrap();
    }
    text
}

#[test]
fn the_file_of_the_operator_gives_rdma_pools() {
    insta::assert_snapshot!(text(&read(include_str!(
        "../../corpus/deviceplugin/operator.json"
    ))));
}

#[test]
fn every_field_has_its_meaning() {
    insta::assert_snapshot!(text(&read(include_str!(
        "../../corpus/deviceplugin/every-field.json"
    ))));
}

#[test]
fn the_first_generation_serves_the_same_devices() {
    let config = read(include_str!(
        "../../corpus/deviceplugin/first-generation.json"
    ));
    assert_eq!(config.refused, []);
    let filters = |at: usize| config.pools[at].selectors[0].filters.clone();
    let pfs = ["0000:06:00.0", "0000:06:00.1"].map(PfItem::new);
    assert_eq!(filters(0), [Filter::RootDevices(pfs.into())]);
    let device: PciAddress = "0000:07:00.0".parse().unwrap();
    assert_eq!(filters(1), [Filter::PciAddresses(vec![device])]);
}

#[test]
fn a_wrong_pool_is_refused_alone_and_told_by_its_path() {
    insta::assert_snapshot!(text(&read(include_str!(
        "../../corpus/deviceplugin/wrong.json"
    ))));
}

#[test]
fn what_upstream_takes_in_silence_is_noted() {
    insta::assert_snapshot!(text(&read(include_str!(
        "../../corpus/deviceplugin/odd.json"
    ))));
}

#[test]
fn a_filter_whose_values_cannot_match_stays_a_filter() {
    let pool = one(r#"{"resourceName": "a", "selectors": {"vendors": ["15B3"]}}"#);
    assert_eq!(pool.selectors[0].filters, [Filter::Vendors(vec![])]);
}

#[test]
fn the_last_value_of_a_repeated_key_counts_in_any_case() {
    let pool = one(r#"{"resourceName": "a", "selectors": {"isRdma": true, "IsRdma": false}}"#);
    assert!(!pool.selectors[0].rdma());
    let pool = one(r#"{"resourceName": "a", "selectors": {"ISRDMA": true, "isRdma": null}}"#);
    assert!(pool.selectors[0].rdma());
    // Kelvin sign and long s, as Go folds them.
    let pool =
        one("{\"re\u{17f}ourceName\": \"a\", \"selectors\": {\"p\u{212a}eys\": [\"0x8001\"]}}");
    assert_eq!(pool.selectors[0].filters.len(), 1);
}

#[test]
fn files_that_say_nothing_are_refused_with_place_and_remedy() {
    let error = |bytes: &[u8]| read_config(bytes, "intel.com").unwrap_err();
    assert_eq!(
        error(b"{\"resourceList\": [\n // no\n]}").to_string(),
        "line 2, column 2: no JSON"
    );
    assert_eq!(error(b"{} {}").code().as_str(), "config-not-json");
    assert_eq!(
        error(b"[]").to_string(),
        "resourceList: the file is a list, not an object"
    );
    assert_eq!(
        error(b"{\"resourceList\": {}}").to_string(),
        "resourceList: it is an object, not a list"
    );
    assert_eq!(
        error(&vec![b' '; LARGEST + 1]).code().as_str(),
        "config-too-large"
    );
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert_eq!(error(&deep).code().as_str(), "config-not-json");
    let many = format!(r#"{{"resourceList": [{}{{}}]}}"#, "{},".repeat(MOST_POOLS));
    assert_eq!(error(many.as_bytes()).code().as_str(), "config-invalid");
}

#[test]
fn lists_are_bounded() {
    let names = vec![r#""eth0""#; 5000].join(",");
    let file = format!(
        r#"{{"resourceList": [{{"resourceName": "a", "selectors": {{"pfNames": [{names}]}}}}]}}"#
    );
    let config = read(&file);
    assert!(
        config.refused[0].problems[0]
            .problem
            .starts_with("5000 items")
    );
}

proptest! {
    #[test]
    fn any_value_in_any_field_is_read_without_a_panic(
        line in 0_usize..24, value in r#"[\[\]{}":,a-z0-9#. -]{0,40}|null|true|5|"x"|\["x"\]|\{\}"#,
    ) {
        let seed = include_str!("../../corpus/deviceplugin/every-field.json");
        let lines: Vec<String> = seed
            .lines()
            .enumerate()
            .map(|(at, text)| match text.rsplit_once(':') {
                Some((key, _)) if at == line => format!("{key}: {value},"),
                _ => text.to_owned(),
            })
            .collect();
        crate::fuzz::fuzz_deviceplugin(lines.join("\n").as_bytes());
    }
}
