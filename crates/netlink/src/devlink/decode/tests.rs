use super::*;
use crate::testing::{attribute, words};

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

fn named(attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [text(1, "pci"), text(2, "0000:3b:00.0")].concat();
    bytes.extend(attributes.iter().flatten());
    bytes
}

fn version(kind: u16, name: &str, value: &str) -> Vec<u8> {
    attribute(kind, &[text(103, name), text(104, value)].concat())
}

#[test]
fn the_firmware_is_the_running_one_under_the_most_general_name() {
    let ice = named(&[
        text(98, "ice"),
        text(99, "00-01-00-ff-ff-00-00-00"),
        version(100, "board.id", "K65390-000"),
        version(101, "fw.mgmt", "6.2.9"),
        version(101, "fw.undi", "1.3146.0"),
        version(101, "fw.app.name", "ICE COMMS Package"),
        version(102, "fw.mgmt", "7.0.0"),
    ]);
    let info = info(Attributes::new(&ice));
    assert_eq!(info.driver.as_deref(), Some("ice"));
    assert_eq!(info.firmware(), Some("6.2.9"));
    assert_eq!(info.ddp(), Some("ICE COMMS Package"));
    assert_eq!(info.versions.len(), 5);
    let json = serde_json::to_string(&info).unwrap();
    assert_eq!(serde_json::from_str::<Info>(&json).unwrap(), info);

    let mlx5 = named(&[
        version(101, "fw.version", "22.36.1010"),
        version(101, "fw", "22.36.1010 (whole)"),
        version(102, "fw", "23.0"),
    ]);
    let info = super::info(Attributes::new(&mlx5));
    assert_eq!(info.firmware(), Some("22.36.1010 (whole)"));
    assert_eq!(info.ddp(), None);
    assert_eq!(super::info(Attributes::new(&named(&[]))).firmware(), None);
}

#[test]
fn eswitch_modes_are_numbers() {
    let mode = |number: u16| {
        let bytes = named(&[attribute(25, &number.to_ne_bytes())]);
        eswitch(Attributes::new(&bytes))
    };
    assert_eq!(mode(0), Some(EswitchMode::Legacy));
    assert_eq!(mode(1), Some(EswitchMode::Switchdev));
    assert_eq!(mode(9), None);
    assert_eq!(eswitch(Attributes::new(&named(&[]))), None);
}

#[test]
fn a_representor_is_a_port_of_a_vf() {
    let bytes = named(&[
        attribute(3, &words(&[32771])),
        attribute(77, &4_u16.to_ne_bytes()),
        attribute(6, &words(&[19])),
        text(7, "ens1f0npf0vf3"),
        attribute(150, &words(&[0])),
        attribute(127, &0_u16.to_ne_bytes()),
        attribute(128, &3_u16.to_ne_bytes()),
    ]);
    let port = port(Attributes::new(&bytes)).unwrap();
    assert_eq!(port.flavour, PortFlavour::PciVf);
    assert_eq!(
        (port.pf, port.vf, port.controller),
        (Some(0), Some(VfIndex(3)), Some(0))
    );
    assert_eq!(port.netdev.as_ref().unwrap().as_str(), "ens1f0npf0vf3");
    assert_eq!(port.device.address().unwrap().to_string(), "0000:3b:00.0");
    let json = serde_json::to_string(&port).unwrap();
    assert_eq!(serde_json::from_str::<Port>(&json).unwrap(), port);
}

#[test]
fn a_switch_is_on_when_its_data_are_there() {
    let parameter = |kind: u8, values: &[Vec<u8>]| {
        let values = attribute(84, &values.concat());
        let parameter = [text(81, "enable_rdma"), attribute(83, &[kind]), values].concat();
        named(&[attribute(80, &parameter)])
    };
    let on = attribute(85, &[attribute(86, &[]), attribute(87, &[1])].concat());
    let off = attribute(85, &attribute(87, &[1]));
    let read = |bytes: &[u8]| switch_parameter(Attributes::new(bytes));
    assert_eq!(read(&parameter(6, &[on.clone(), off.clone()])), Some(true));
    assert_eq!(read(&parameter(6, &[off, on.clone()])), Some(false));
    assert_eq!(read(&parameter(5, &[on])), None, "another type");
    assert_eq!(read(&parameter(6, &[])), None);
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        fuzz_devlink(&bytes);
        fuzz_devlink(&named(&[bytes]));
    }
}

#[test]
fn the_first_value_of_a_word_is_read_and_written_with_its_kind() {
    let value =
        |word: &str, when: u8| attribute(85, &[text(86, word), attribute(87, &[when])].concat());
    let parameter = |kind: u8| {
        let list = [value("dmfs", 0), value("smfs", 2)].concat();
        let nest = [
            text(81, "flow_steering_mode"),
            attribute(83, &[kind]),
            attribute(84, &list),
        ];
        named(&[attribute(80, &nest.concat())])
    };
    let bytes = parameter(5);
    let found = word_parameter(Attributes::new(&bytes)).unwrap();
    assert_eq!((found.word.as_str(), found.when), ("dmfs", 0));
    assert_eq!(word_parameter(Attributes::new(&parameter(6))), None);

    let mut request = crate::wire::Request::new(0, &[]);
    let word = "smfs".to_owned();
    let value = WordParameter { word, ..found };
    super::super::fill_word(&mut request, "flow_steering_mode", &value);
    let wanted = [
        text(81, "flow_steering_mode"),
        attribute(83, &[5]),
        attribute(87, &[0]),
        text(86, "smfs"),
    ];
    assert_eq!(request.payload(), wanted.concat());
}
