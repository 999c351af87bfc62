use super::*;
use crate::testing;
use fixtures::{FakeHost, igb};
use host::Event;
use model::{PfPlan, Plan, PlannedStep, Price, Step, StepError, VfIndex};

fn plan() -> Plan {
    let mut host = FakeHost::new(fixtures::inventory([
        igb("0000:01:00.0", "eth0").with_vfs(1)
    ]));
    let seen = host.observe(Scope::All).unwrap();
    let (pf, facts) = seen.pfs().next().unwrap();
    let vf = *facts.vfs.first_key_value().unwrap().1;
    let steps = [
        Step::SetNumVfs {
            pf: pf.address,
            count: 1,
        },
        Step::AwaitNetdev { function: vf },
    ];
    Plan {
        pfs: vec![PfPlan {
            pf: pf.address,
            name: pf.netdev_name().cloned(),
            steps: steps
                .map(|step| PlannedStep {
                    step,
                    before: None,
                    undo: None,
                    price: Price::default(),
                })
                .into(),
            vfs: [(vf, VfIndex(0))].into(),
            is_cut: false,
        }],
    }
}

#[test]
fn each_step_is_one_line_that_names_pf_and_vf() {
    let plan = plan();
    let (out, err) = testing::spoken(|ui| {
        let progress = Progress::new(&plan);
        let pf = &plan.pfs[0];
        for (at, planned) in pf.steps.iter().enumerate() {
            let event = Event::StepMade {
                pf: pf.pf,
                number: at + 1,
                of: 2,
                step: planned.step.clone(),
                elapsed: Duration::from_millis(1500 * u64::from(at == 0)),
            };
            progress.tell(&event, ui);
        }
    });
    assert_eq!(out, "");
    insta::assert_snapshot!(err, @r"
    ✓ eth0  1/2  have 1 VFs  (1.5 s)
    ✓ eth0  2/2  vf 0: wait for the netdev
    ");
}

#[test]
fn a_pf_that_failed_is_told_with_its_cause_and_what_is_left() {
    let remaining = plan();
    let fault = StepError {
        object: "PF eth0 (0000:01:00.0)".to_owned(),
        attempt: "set sriov_numvfs to 1".to_owned(),
        source: Some(Box::from("Device or resource busy (os error 16)")),
        code: Code::new("busy"),
        remedy: Some("see who uses it".to_owned()),
    };
    let applied = Applied {
        pfs: vec![PfApplied {
            pf: remaining.pfs[0].pf,
            name: remaining.pfs[0].name.clone(),
            made: Vec::new(),
            vfs: Vec::new(),
            outcome: Err(fault.into()),
        }],
        forgotten: Vec::new(),
        undecided: None,
        remaining,
        interrupted: None,
    };
    let (out, err) = testing::spoken(|ui| {
        assert_eq!(conclude(applied, 0, Exit::Done, ui), Exit::Failed);
    });
    assert_eq!(out, "");
    insta::assert_snapshot!(err, @r"
    error[busy]: configure PF eth0 (0000:01:00.0)
      caused by: PF eth0 (0000:01:00.0): set sriov_numvfs to 1
      caused by: Device or resource busy (os error 16)
    help: see who uses it
    still to do:
    pf eth0 0000:01:00.0   traffic kept, no drain
      1  have 1 VFs
      2  vf 0: wait for the netdev
    ");
}
