use super::*;

const GOOD: &str = "\
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: rack-a, namespace: sriov}
spec:
  resourceName: intel
  nodeSelector:
    feature.node.kubernetes.io/network-sriov.capable: \"true\"
  numVfs: 8
  mtu: 9000
  nicSelector:
    vendor: \"8086\"
    pfNames: [\"ens1f0#0-3\"]
  deviceType: vfio-pci
";

/// Errors as the command line prints them: each problem with its remedy.
fn errors(text: &str) -> String {
    let error = read_policies(text, "rack.yaml").unwrap_err();
    let lines = error
        .problems
        .iter()
        .map(|p| format!("[{}] {p}\n  remedy: {}", p.code, p.remedy));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_policy_is_read_with_its_place() {
    let text = format!(
        "# ours\n---\n{GOOD}---\n{}",
        GOOD.replace("rack-a", "rack-b")
    );
    let read = read_policies(&text, "rack.yaml").unwrap();
    assert_eq!(read.warnings, []);
    let [a, b] = read.policies.as_slice() else {
        panic!()
    };
    assert_eq!(
        (a.origin.to_string(), b.origin.to_string()),
        ("rack.yaml:3".into(), "rack.yaml:17".into())
    );
    assert_eq!((a.name.as_str(), b.name.as_str()), ("rack-a", "rack-b"));
    assert_eq!(a.nic.pf_names[0].range.unwrap().to_string(), "0-3");
    assert_eq!(a.mtu.unwrap().get(), 9000);
    assert_eq!(a.driver.to_string(), "vfio-pci");
}

#[test]
fn lists_and_json_are_read() {
    let indented = GOOD.replace('\n', "\n  ");
    let text = format!("apiVersion: v1\nkind: List\nitems:\n- {indented}");
    let read = read_policies(&text, "f").unwrap();
    assert_eq!(read.policies[0].origin.line, 4);
    let json = r#"{"apiVersion":"sriovnetwork.openshift.io/v1","kind":"SriovNetworkNodePolicyList",
        "items":[{"apiVersion":"sriovnetwork.openshift.io/v1","kind":"SriovNetworkNodePolicy",
        "metadata":{"name":"x"},"spec":{"resourceName":"r","nodeSelector":{},"numVfs":1,
        "nicSelector":{"pfNames":["a"]},"bridge":{}},"status":{}}]}"#;
    assert_eq!(read_policies(json, "f").unwrap().policies[0].name, "x");
}

#[test]
fn unknown_fields_are_warnings_that_guess() {
    let text = GOOD
        .replace("  mtu: 9000", "  MTU: 9000\n  trust: \"on\"")
        .replace("pfNames", "pfName");
    let read = read_policies(&text, "rack.yaml").unwrap();
    let warnings: Vec<_> = read.warnings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(warnings.join("\n"), @r"
    rack.yaml:9: policy rack-a: unknown field spec.MTU is ignored; did you mean mtu?
    rack.yaml:10: policy rack-a: unknown field spec.trust is ignored; it is a setting of SriovNetwork
    rack.yaml:13: policy rack-a: unknown field spec.nicSelector.pfName is ignored; did you mean pfNames?
    ");
    assert_eq!(read.policies[0].mtu, None);
}

#[test]
fn a_software_bridge_is_a_warning() {
    let text = format!(
        "{}  eSwitchMode: switchdev\n  bridge: {{ovs: {{}}}}\n",
        GOOD.replace("vfio-pci", "netdevice")
    );
    let read = read_policies(&text, "f").unwrap();
    assert_eq!(
        read.warnings[0].to_string(),
        "f:15: policy rack-a: spec.bridge.ovs is ignored: software bridges are not managed"
    );
}

#[test]
fn everything_wrong_with_a_file_is_named_at_once() {
    let text = GOOD
        .replace("mtu: 9000", "mtu: 0\n  priority: 100\n  linkType: wifi")
        .replace("\"8086\"", "8086")
        + "---\nkind: Pod\napiVersion: v1\n---\n"
        + &GOOD.replace("/v1", "/v2")
        + "---\n"
        + &GOOD
            .replace("#0-3", "#5-2")
            .replace("\"8086\"", "intel")
            .replace("rack-a", "rack-b")
        + "---\n- 1\n";
    insta::assert_snapshot!(errors(&text), @r#"
    [policy-invalid] rack.yaml:9: policy rack-a: spec.mtu: 0 is not a number of at least 1
      remedy: write a number of at least 1
    [policy-invalid] rack.yaml:10: policy rack-a: spec.priority: 100 is not a number from 0 to 99
      remedy: write a number from 0 to 99
    [policy-invalid] rack.yaml:11: policy rack-a: spec.linkType: "wifi" is not one of eth, ETH, ib, IB
      remedy: write one of eth, ETH, ib, IB
    [policy-invalid] rack.yaml:13: policy rack-a: spec.nicSelector.vendor: 8086 is a whole number, not text
      remedy: put it in quotes: "8086"
    [policy-kind] rack.yaml:17: kind Pod is not a SriovNetworkNodePolicy
      remedy: keep only objects with apiVersion: sriovnetwork.openshift.io/v1 and kind: SriovNetworkNodePolicy in this file
    [policy-kind] rack.yaml:20: apiVersion sriovnetwork.openshift.io/v2 of SriovNetworkNodePolicy is not known
      remedy: write apiVersion: sriovnetwork.openshift.io/v1
    [policy-invalid] rack.yaml:45: policy rack-b: spec.nicSelector.pfNames[0]: "5-2" in "ens1f0#5-2" is not a range of VFs
      remedy: write the lower number first: ens1f0#2-5
    [policy-invalid] rack.yaml:44: policy rack-b: spec.nicSelector.vendor: "intel" is not a PCI id of four hexadecimal digits
      remedy: write it as `lspci -n` does, such as "8086"
    [policy-kind] rack.yaml:48: is a list, not an object
      remedy: keep only objects with apiVersion: sriovnetwork.openshift.io/v1 and kind: SriovNetworkNodePolicy in this file
    "#);
}

#[test]
fn what_upstreams_webhook_refuses_is_refused() {
    let text = GOOD
        .replace("resourceName: intel", "resourceName: -intel")
        .replace("#0-3", "#0-8")
        .replace(
            "  mtu: 9000\n",
            "  isRdma: true\n  vdpaType: vhost\n  linkType: ib\n  eSwitchMode: switchdev\n",
        );
    insta::assert_snapshot!(errors(&text), @r#"
    [policy-invalid] rack.yaml:5: policy rack-a: spec.resourceName: "-intel" is not a resource name
      remedy: write letters, digits, '_' and '-', such as intel_sriov
    [policy-invalid] rack.yaml:15: policy rack-a: spec.nicSelector.pfNames[0]: ens1f0#0-8 ends beyond the 8 VFs of numVfs
      remedy: set numVfs to 9 or more, or end the range earlier
    [policy-invalid] rack.yaml:9: policy rack-a: spec.isRdma: goes with deviceType netdevice only, not vfio-pci
      remedy: leave out isRdma, or set deviceType to netdevice
    [policy-invalid] rack.yaml:12: policy rack-a: spec.eSwitchMode: switchdev goes with Ethernet only
      remedy: set linkType to eth
    [policy-invalid] rack.yaml:10: policy rack-a: spec.vdpaType: goes with deviceType netdevice only
      remedy: leave out vdpaType, or set deviceType to netdevice
    "#);
    let empty = "apiVersion: sriovnetwork.openshift.io/v1\nkind: SriovNetworkNodePolicy\nmetadata: {name: a}\n\
        spec: {resourceName: r, nodeSelector: {}, numVfs: 1, nicSelector: {}}\n";
    assert!(errors(empty).contains("rack.yaml:4: policy a: spec.nicSelector: selects nothing"));
    assert!(read_policies(&empty.replace("name: a", "name: default"), "f").is_ok());
}

#[test]
fn what_is_no_policy_is_said_plainly() {
    for (text, problem) in [
        ("", "[policy-file-empty] rack.yaml: holds no object"),
        (
            "# nothing\n---\n",
            "[policy-file-empty] rack.yaml: holds no object",
        ),
        ("hello", "[policy-kind] rack.yaml:1: is text, not an object"),
        ("a: 1", "[policy-kind] rack.yaml:1: the object has no kind"),
        (
            "a: [1\nb: 2",
            "[policy-not-yaml] rack.yaml:2: not readable as YAML: ",
        ),
        (
            "a: 1\na: 2",
            "[policy-not-yaml] rack.yaml:2: not readable as YAML: ",
        ),
        (
            "kind: SriovNetworkNodePolicy",
            "[policy-kind] rack.yaml:1: the object has no apiVersion",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: {}",
            "[policy-invalid] rack.yaml:3: List: items: is an object, not a list",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: [~]",
            "[policy-kind] rack.yaml:3: is nothing, not an object",
        ),
    ] {
        let got = errors(text);
        assert!(got.starts_with(problem), "{text:?}: {got}");
    }
    let nameless = GOOD.replace("name: rack-a, ", "");
    assert!(
        errors(&nameless)
            .contains("rack.yaml:3: policy without a name: metadata.name: is required")
    );
    let shouted = GOOD.replace("rack-a", "Rack_A");
    assert!(errors(&shouted).contains(r#"metadata.name: "Rack_A" is not a name of an object"#));
}

#[test]
fn many_errors_are_reported_up_to_a_bound() {
    let error = read_policies(&"---\nkind: Pod\n".repeat(1_000), "f").unwrap_err();
    assert_eq!(error.problems.len(), MAX_REPORTED);
}

#[test]
fn a_pool_says_the_rdma_mode_of_its_nodes() {
    let pool = |spec: &str| {
        let text = format!(
            "apiVersion: sriovnetwork.openshift.io/v1\nkind: SriovNetworkPoolConfig\n\
             metadata: {{name: racks}}\nspec: {spec}\n"
        );
        read_documents(&text, "pool.yaml")
    };
    let selector =
        "{matchLabels: {row: x}, matchExpressions: [{key: rack, operator: In, values: [a, b]}]}";
    let read = pool(&format!(
        "{{maxUnavailable: 10%, rdmaMode: exclusive, nodeSelector: {selector}}}"
    ))
    .unwrap();
    let found = &read.node_pools[0];
    assert_eq!((found.name.as_str(), found.origin.line), ("racks", 1));
    assert_eq!(found.rdma_netns, Some(model::RdmaNetnsMode::Exclusive));
    let labels = |rack: &str| {
        let labels = [("row", "x"), ("rack", rack)];
        labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    };
    assert!(found.selects(&labels("b")) && !found.selects(&labels("c")));
    // For OpenShift's machine pools, and nothing that a node has.
    let offload = pool("{ovsHardwareOffloadConfig: {name: worker}}").unwrap();
    assert_eq!(offload.node_pools, []);
    let wrong = "{nodeSelector: {matchExpressions: [{key: rack, operator: Exists, values: [a]}]}}";
    let error = pool(wrong).unwrap_err().to_string();
    assert!(error.contains("matchExpressions[0].values"), "{error}");
    // Who reads policies only does not take them.
    let text = "apiVersion: sriovnetwork.openshift.io/v1\nkind: SriovNetworkPoolConfig\nmetadata: {name: a}\n";
    assert!(read_policies(text, "pool.yaml").is_err());
}
