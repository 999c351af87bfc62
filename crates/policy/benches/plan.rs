//! How long a node takes to decide: 16 PFs with 64 VFs each, 50 policies. The budget is 5 ms.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fixtures::{Pf, inventory, mlx5, parsed};
use model::{Inventory, Mtu, NicSelector, NodePolicy, Origin, PfNameSelector, VfDriver, VfRange};
use policy::{Circumstances, Owned, decide, resolve};

const PFS: u16 = 16;
const VFS: u16 = 64;
const POLICIES: u16 = 50;

fn host(vfs: u16) -> Inventory {
    let pf = |number: u16| -> Pf {
        mlx5(
            &format!("0000:{:02x}:00.0", number + 1),
            &format!("ens{number}"),
        )
        .with_vfs(vfs)
    };
    inventory((0..PFS).map(pf))
}

/// Policies of which each has a part of the VFs of some PFs: about three for each PF.
fn policies() -> Vec<NodePolicy> {
    let one = |number: u16| {
        let part = (number / PFS) % 4;
        NodePolicy {
            name: format!("policy-{number}"),
            origin: Origin::default(),
            priority: 99,
            resource: format!("resource_{number}"),
            node_selector: BTreeMap::new(),
            nic: NicSelector {
                vendor: Some(0x15b3),
                pf_names: vec![PfNameSelector {
                    name: format!("ens{}", number % PFS),
                    range: VfRange::new(part * 16, part * 16 + 15),
                }],
                ..NicSelector::default()
            },
            num_vfs: VFS,
            mtu: Mtu::new(9000),
            driver: if part == 0 {
                VfDriver::Named(parsed("vfio-pci"))
            } else {
                VfDriver::Kernel
            },
            is_rdma: false,
            need_vhost_net: false,
            link_type: None,
            eswitch: None,
            vdpa: None,
            externally_managed: false,
            exclude_topology: false,
        }
    };
    (0..POLICIES).map(one).collect()
}

/// Every PF was configured before.
fn known(seen: &Inventory) -> Circumstances {
    let owned = seen.pfs().map(|(pf, _)| (pf.address, Owned::default()));
    Circumstances {
        owned: owned.collect(),
        ..Circumstances::default()
    }
}

fn measure(criterion: &mut Criterion) {
    let policies = policies();
    let labels = BTreeMap::new();
    let mut group = criterion.benchmark_group("1024 VFs on 16 PFs, 50 policies");
    for (name, vfs) in [("first VFs", 0), ("every VF differs", VFS)] {
        let seen = host(vfs);
        let desired = resolve(&seen, &policies, &labels).desired;
        let known = known(&seen);
        let decision = decide(&seen, &desired, &known);
        assert!(decision.plan.steps().count() > 700, "{name}");
        group.bench_function(format!("resolve and decide, {name}"), |bencher| {
            bencher.iter(|| {
                let desired = resolve(black_box(&seen), &policies, &labels).desired;
                decide(&seen, &desired, &known)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, measure);
criterion_main!(benches);
