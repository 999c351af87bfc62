use super::*;
use crate::testing;

#[test]
fn the_view_is_written_as_documented() {
    let json = serde_json::to_string_pretty(&testing::view("worker-17")).unwrap();
    insta::assert_snapshot!(json);
}

#[test]
fn the_view_reads_back_what_it_wrote() {
    let view = testing::view("worker-17");
    let json = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<HostView>(&json).unwrap(), view);
}

#[test]
fn a_view_of_another_version_is_read_as_far_as_it_goes() {
    let text = r#"{
        "schema": "virtfn.host/v1", "news": 1,
        "pfs": [{"address": "0000:3b:00.0", "colour": "red", "vfs": [
            {"address": "0000:3b:10.0", "pf": {"address": "0000:3b:00.0"}}
        ]}]
    }"#;
    let view: HostView = serde_json::from_str(text).unwrap();
    let pfs = view.pfs.unwrap();
    let vf = &pfs[0].vfs.as_ref().unwrap()[0];
    assert_eq!((vf.trust, vf.vlan), (None, None));
}
