use fixtures::{FakeHost, igb, inventory, mlx5, parsed};
use model::{Explain, Holder, HolderKind, Host, LinkPolicy, VlanProto, VlanTag};

use super::*;
use crate::render;

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

fn request(vf: &str, netns: Option<NetnsTarget>) -> AttachRequest {
    AttachRequest {
        vf: parsed(vf),
        holder: Holder {
            kind: HolderKind::Attach,
            id: "blue".to_owned(),
            interface: None,
        },
        settings: model::VfSettings::default(),
        interface: netns.map(|netns| AttachInterface {
            netns,
            name: Some(parsed("net1")),
            mac: None,
            mtu: None,
            addresses: Vec::new(),
        }),
        with_rdma: false,
        lives_in: None,
    }
}

fn vlan(id: u16) -> Option<Option<VlanTag>> {
    Some(Some(VlanTag {
        id: model::VlanId::new(id).unwrap(),
        pcp: model::Pcp::default(),
        proto: VlanProto::Dot1q,
    }))
}

/// Attaches, takes each prefix of the steps back, and returns the steps as text.
#[track_caller]
fn attached(host: &FakeHost, request: &AttachRequest) -> String {
    let seen = host.inventory();
    let plan = attach(&seen, request).unwrap();
    for made in 0..=plan.steps.len() {
        let mut host = host.clone();
        for planned in &plan.steps[..made] {
            host.perform(&planned.step).unwrap();
        }
        for planned in plan.steps[..made].iter().rev() {
            // Twice, because whoever takes back may be killed and begin again.
            for undo in planned.undo.iter().chain(planned.undo.iter()) {
                host.perform(undo).unwrap();
            }
        }
        assert_eq!(host.inventory(), seen, "after {made} steps and back");
        assert_eq!(host.addresses(request.vf), []);
    }
    render(&plan.as_plan(&seen))
}

#[test]
fn nothing_is_set_that_nobody_asked_for() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(2)]));
    let blue = host.add_netns("blue");
    insta::assert_snapshot!(attached(&host, &request(VF, Some(blue))), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  vf 0: move to namespace blue as net1, up   was ens1v0 on the host
    ");
}

#[test]
fn an_interface_gets_no_name_that_the_kernel_would_change_or_refuse() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(2)]));
    let blue = host.add_netns("blue");
    for name in ["net%d", "%", "all", "default"] {
        let mut request = request(VF, Some(blue.clone()));
        request.interface.as_mut().unwrap().name = Some(parsed(name));
        let refused = attach(&host.inventory(), &request).unwrap_err();
        assert_eq!(refused.code().as_str(), "bad-interface-name", "{refused}");
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[test]
fn everything_on_igb_goes_there_and_back() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(2)]));
    let blue = host.add_netns("blue");
    let mut all = request(VF, Some(blue));
    all.settings.vlan = vlan(100);
    all.settings.spoof_check = Some(false);
    all.settings.trust = Some(true);
    all.settings.max_rate = Some(model::Mbps::new(200));
    all.settings.link = Some(LinkPolicy::Auto);
    let interface = all.interface.as_mut().unwrap();
    interface.mac = Some(parsed("02:00:00:00:00:01"));
    interface.mtu = model::Mtu::new(1400);
    interface.addresses = vec![parsed("192.0.2.1/24"), parsed("2001:db8::1/64")];
    insta::assert_snapshot!(attached(&host, &all), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1   vf 0: set vlan 100                                   was vlan none
      2   vf 0: set mac none                                   was mac 02:fa:00:00:01:03
      3   vf 0: set interface mac 02:00:00:00:00:01            was mac 02:fa:00:00:01:03
      4   vf 0: set mac 02:00:00:00:00:01                      was mac none
      5   vf 0: set rate min unlimited max 200 Mbit/s          was rate min unlimited max unlimited
      6   vf 0: set spoofchk off                               was spoofchk on
      7   vf 0: set trust on                                   was trust off
      8   vf 0: set mtu 1400                                   was mtu 1500
      9   vf 0: move to namespace blue as net1, up             was ens1v0 on the host
      10  vf 0: add address 192.0.2.1/24 in namespace blue
      11  vf 0: add address 2001:db8::1/64 in namespace blue
    ");
}

#[test]
fn what_is_so_already_is_left_alone() {
    let mut host = FakeHost::new(inventory([mlx5(PF, "ens1").with_vfs(2)]));
    let blue = host.add_netns("blue");
    let mut same = request("0000:01:00.2", Some(blue));
    same.settings.vlan = Some(None);
    same.settings.spoof_check = Some(false);
    same.settings.trust = Some(false);
    same.settings.max_rate = Some(None);
    same.settings.link = Some(LinkPolicy::Auto);
    assert_eq!(attached(&host, &same).lines().count(), 2);
}

#[test]
fn mlx5_lets_the_vf_have_its_mac_first_and_needs_no_unpinning() {
    let mut host = FakeHost::new(inventory([mlx5(PF, "ens1").with_vfs(2)]));
    let up = model::Step::SetUp {
        function: parsed("0000:01:00.2"),
        netns: NetnsTarget::Host,
        up: true,
    };
    host.perform(&up).unwrap();
    let blue = host.add_netns("blue");
    let mut mac = request("0000:01:00.2", Some(blue));
    mac.settings.mac = Some(parsed("02:00:00:00:00:01"));
    insta::assert_snapshot!(attached(&host, &mac), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  vf 0: set link down                         was up
      2  vf 0: set interface mac 02:00:00:00:00:01   was mac 02:fa:00:00:01:03
      3  vf 0: set mac 02:00:00:00:00:01             was mac none
      4  vf 0: move to namespace blue as net1, up    was ens1v0 on the host
    ");
}

#[test]
fn a_pinned_mac_is_replaced_and_pinned_again() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(1)]));
    let own = host
        .inventory()
        .get(parsed(VF))
        .unwrap()
        .netdev()
        .unwrap()
        .mac()
        .unwrap();
    let pin = model::Step::SetVf {
        pf: parsed(PF),
        vf: VfIndex(0),
        attr: model::VfAttr::Mac(own),
    };
    host.perform(&pin).unwrap();
    let blue = host.add_netns("blue");
    let mut mac = request(VF, Some(blue));
    mac.settings.mac = Some(parsed("02:00:00:00:00:01"));
    assert!(attached(&host, &mac).contains("set mac none"));
}

#[test]
fn a_vf_on_vfio_gets_settings_only() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(1)]));
    let bind = model::Step::Bind {
        function: parsed(VF),
        to: model::BindTarget::Driver(parsed("vfio-pci")),
    };
    host.perform(&bind).unwrap();
    let mut device = request(VF, None);
    device.settings.vlan = vlan(7);
    device.settings.mac = Some(parsed("02:00:00:00:00:01"));
    insta::assert_snapshot!(attached(&host, &device), @r"
    pf ens1 0000:01:00.0   traffic kept, no drain
      1  vf 0: set vlan 7                  was vlan none
      2  vf 0: set mac 02:00:00:00:00:01   was mac 02:fa:00:00:01:03
    ");
}

#[test]
fn unknown_trust_goes_back_to_none() {
    let mut seen = inventory([igb(PF, "ens1").with_vfs(1)]);
    if let model::Role::Vf(facts) = &mut seen.functions.get_mut(&parsed(VF)).unwrap().role {
        facts.state.as_mut().unwrap().trust = None;
    }
    let mut trusted = request(VF, None);
    trusted.settings.trust = Some(true);
    let plan = attach(&seen, &trusted).unwrap();
    assert_eq!(plan.steps[0].before.as_deref(), Some("not reported"));
    assert!(plan.undo()[0].to_string().ends_with("trust off"));
}

#[test]
fn a_vf_that_cannot_be_given_is_refused_with_a_way_out() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1").with_vfs(3)]));
    let blue = host.add_netns("blue");
    let bind = |function, to| model::Step::Bind { function, to };
    host.perform(&bind(
        parsed("0000:01:10.2"),
        model::BindTarget::Driver(parsed("vfio-pci")),
    ))
    .unwrap();
    host.perform(&bind(parsed("0000:01:10.4"), model::BindTarget::Nothing))
        .unwrap();
    let mut held = host.clone();
    held.set_holder(parsed(VF), Some(request(VF, None).holder));
    let with = |change: fn(&mut model::VfSettings)| {
        let mut request = request(VF, Some(blue.clone()));
        change(&mut request.settings);
        request
    };
    let refused = |host: &FakeHost, request: &AttachRequest| {
        let error = attach(&host.inventory(), request).unwrap_err();
        format!(
            "error[{}]: {error}\n  {}",
            error.code(),
            error.remedy().unwrap()
        )
    };
    let all = [
        refused(&host, &request("0000:09:00.0", None)),
        refused(&host, &request(PF, None)),
        refused(&held, &request(VF, None)),
        refused(&host, &request("0000:01:10.2", Some(blue.clone()))),
        refused(&host, &request("0000:01:10.4", Some(blue.clone()))),
        refused(&host, &with(|s| s.mac = Some(parsed("ff:ff:ff:ff:ff:ff")))),
        refused(&host, &with(|s| s.mac = Some(MacAddr::ZERO))),
        refused(&host, &with(|s| s.link = Some(LinkPolicy::Enable))),
        refused(&host, &with(|s| s.min_rate = Some(model::Mbps::new(1)))),
        refused(
            &host,
            &with(|s| {
                s.min_rate = Some(model::Mbps::new(2));
                s.max_rate = Some(model::Mbps::new(1));
            }),
        ),
        refused(&host, &with(|s| s.node_guid = Some(model::Guid::new(1)))),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    error[no-such-vf]: there is no device 0000:09:00.0
      see the VFs of this host with `virtfn list vf`
    error[not-a-vf]: ens1 (0000:01:00.0) is a PF, not a VF
      name one of its VFs, such as <pf>/0; `virtfn list vf` shows them
    error[vf-in-use]: VF 0000:01:10.0 is in use by attach blue
      take another VF, or free this one with `virtfn detach 0000:01:10.0`
    error[no-netdev]: VF 0000:01:10.2 has no netdev: it is bound to vfio-pci
      give it its kernel driver with `virtfn unbind 0000:01:10.2`
    error[no-netdev]: VF 0000:01:10.4 has no netdev: no driver is bound
      give it its kernel driver with `virtfn unbind 0000:01:10.4`
    error[bad-mac]: ff:ff:ff:ff:ff:ff is a group address, which no interface can have
      choose one such as 02:00:5e:10:00:01
    error[bad-mac]: 00:00:00:00:00:00 is the zero address, which no interface can have
      choose one such as 02:00:5e:10:00:01
    error[not-supported]: PF ens1 (0000:01:00.0): it has no setting link-state (driver igb)
      leave out link-state
    error[not-supported]: PF ens1 (0000:01:00.0): it has no setting min_tx_rate (driver igb)
      leave out min_tx_rate
    error[bad-rate]: the guaranteed rate of 2 Mbit/s is above the highest rate of 1 Mbit/s
      lower the one, or raise the other
    error[not-supported]: PF ens1 (0000:01:00.0): it has no setting guid (driver igb)
      leave out guid
    ");
}

#[test]
fn a_holder_is_told_what_may_surprise() {
    let mut host = FakeHost::new(inventory([igb(PF, "ens1")
        .with_vfs(2)
        .netdev(|n| n.admin_up = false)]));
    let blue = host.add_netns("blue");
    let other = host
        .inventory()
        .get(parsed("0000:01:10.2"))
        .unwrap()
        .netdev()
        .unwrap()
        .mac();
    let mut odd = request(VF, Some(blue));
    odd.settings.mac = other;
    odd.interface.as_mut().unwrap().mtu = model::Mtu::new(9000);
    let notes = attach(&host.inventory(), &odd).unwrap().notes;
    let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(notes.join("\n"), @r"
    PF ens1 (0000:01:00.0) is down, so the VF has no link; a policy sets it up, or `ip link set … up`
    VF 0000:01:10.2 has MAC 02:fa:00:00:01:04 too; on one VLAN the two cannot both be reached
    PF ens1 (0000:01:00.0) has mtu 1500, and larger frames may not pass it
    ");
}
