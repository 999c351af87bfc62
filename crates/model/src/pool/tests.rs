use proptest::prelude::*;

use super::*;

#[test]
fn resource_names_are_those_that_the_kubelet_takes() {
    let name: ResourceName = "intel.com/sriov_A-1.x".parse().unwrap();
    assert_eq!((name.prefix(), name.name()), ("intel.com", "sriov_A-1.x"));
    let long = format!("{}/x", vec!["a".repeat(60); 5].join("."));
    for bad in [
        "",
        "sriov",
        "/x",
        "intel.com/",
        "Intel.com/x",
        "intel.com/_x",
        "intel.com/x-",
        "a..b/x",
        "kubernetes.io/x",
        "my.kubernetes.io/x",
        "requests.x/y",
        "a/b/c",
        "a_b.com/x",
        "é.com/x",
        &long,
        "intel.com/0123456789012345678901234567890123456789012345678901234567890123",
    ] {
        assert!(bad.parse::<ResourceName>().is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn pf_items_follow_the_table_of_upstream() {
    // Text, function numbers that are in, and those that are not.
    let table: [(&str, &[u32], &[u32]); 11] = [
        ("eth0", &[0, 7, 500], &[]),
        ("eth0#3", &[3], &[0, 4]),
        ("eth0#0-2,5", &[0, 1, 2, 5], &[3, 4, 6]),
        ("eth0#5-2", &[], &[2, 3, 5]),
        ("eth0#", &[], &[0]),
        ("eth0#1#2", &[], &[1, 2]),
        ("eth0#0, 2", &[0], &[2]),
        ("eth0#0,1-2-3,4", &[0], &[1, 2, 3, 4]),
        ("eth0#+1", &[], &[1]),
        ("eth0#99999999999", &[], &[0]),
        ("eth0#a", &[], &[0]),
    ];
    for (text, inside, outside) in table {
        let item = PfItem::new(text);
        assert!(item.names("ETH0") && !item.names("eth1"), "{text}");
        for index in inside {
            assert!(item.has(Some(*index)), "{text} lacks {index}");
        }
        for index in outside {
            assert!(!item.has(Some(*index)), "{text} has {index}");
        }
    }
    assert!(PfItem::new("eth0").has(None) && !PfItem::new("eth0#0").has(None));
    assert_eq!(PfItem::new("eth0#0, 2").cut_at(), Some(" 2"));
    assert!(PfItem::new("eth0#5-2").is_void() && !PfItem::new("eth0").is_void());
    assert!(!PfItem::new("#a").names("eth0"));
}

#[test]
fn device_ids_are_addresses_or_auxiliary_names() {
    for good in ["0000:3b:02.1", "mlx5_core.sf.4"] {
        assert_eq!(good.parse::<DeviceId>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "3b:02.1",
        "mlx5_core.sf",
        "a.b.c",
        "a.b.1/..",
        "a..1",
        "a.b.1.2",
    ] {
        assert!(bad.parse::<DeviceId>().is_err(), "{bad:?} was accepted");
    }
    assert_eq!("mlx5_core.sf.4".parse::<AuxName>().unwrap().kind(), "sf");
}

#[test]
fn ids_match_only_in_the_form_of_upstream() {
    assert_eq!("15b3".parse::<HexId>().unwrap().to_string(), "15b3");
    for bad in ["15B3", "0x15b3", "15b", "", "15b33"] {
        assert!(bad.parse::<HexId>().is_err(), "{bad:?} was accepted");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_item_and_no_text_panics(text in "[a-z0-9#,\\- ]{0,24}|.{0,12}", index: u32) {
        let item = PfItem::new(&text);
        prop_assert_eq!(item.to_string(), text.clone());
        prop_assert!(!item.is_void() || !item.has(Some(index)));
        drop(text.parse::<ResourceName>());
        drop(text.parse::<DeviceId>());
    }
}
