//! Files of policies.

use std::fmt;

use model::{Code, Explain, NodePolicy, NodePool, Origin};
use serde::de::DeserializeOwned;

use super::node_policy::{SCHEMA, SriovNetworkNodePolicy};
use super::schema::{self, Field, shorten};
use super::{API_VERSION, review_node_policy};
use crate::field::{FieldPath, FieldProblem};
use crate::yaml::{self, Node, Value};

mod node_state;
mod pool_config;
#[cfg(test)]
mod tests;

pub use node_state::NodeStateDocument;

const KIND: &str = "SriovNetworkNodePolicy";

/// Settings of `SriovNetwork` that people look for in a policy.
const OF_NETWORK: [&str; 10] = [
    "spoofChk",
    "trust",
    "linkState",
    "vlan",
    "vlanQoS",
    "vlanProto",
    "minTxRate",
    "maxTxRate",
    "ipam",
    "metaPlugins",
];

/// Most problems and warnings that are kept of one file: nobody reads more.
const MAX_REPORTED: usize = 100;

/// The policies of one file, and what looks wrong with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyDocuments {
    /// The policies, in the order of the file.
    pub policies: Vec<NodePolicy>,
    /// Node states, another way to say what a host should have, in the order of the file.
    pub node_states: Vec<NodeStateDocument>,
    /// Pools of nodes, which say what policies do not, in the order of the file.
    pub node_pools: Vec<NodePool>,
    /// What was ignored, as upstream's API server would warn.
    pub warnings: Vec<Warning>,
}

/// Something in a file that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it is.
    pub origin: Origin,
    /// Which object it is in, such as `policy rack-a`.
    pub object: String,
    /// What is ignored and what was probably meant.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.object, self.text)
    }
}

/// A file of policies that cannot be used, with everything that is wrong with it.
///
/// Its text has one line for each problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFileError {
    /// What is wrong, in the order of the file; never empty.
    pub problems: Vec<PolicyProblem>,
}

/// One thing wrong with a file of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The line.
    pub origin: Origin,
    /// Which object it is in, such as `policy rack-a`; empty when none could be read.
    pub object: String,
    /// The field and what is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
    /// Stable code.
    pub code: Code,
}

impl std::error::Error for PolicyFileError {}

impl fmt::Display for PolicyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Explain for PolicyFileError {
    fn code(&self) -> Code {
        self.problems
            .first()
            .map_or(INVALID, |problem| problem.code)
    }

    fn remedy(&self) -> Option<String> {
        match self.problems.as_slice() {
            [] => None,
            [only] => Some(only.remedy.clone()),
            many => {
                let lines = many
                    .iter()
                    .map(|problem| format!("{}: {}", problem.origin, problem.remedy));
                Some(lines.collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

impl std::error::Error for PolicyProblem {}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        f.write_str(&self.problem)
    }
}

impl Explain for PolicyProblem {
    fn code(&self) -> Code {
        self.code
    }

    fn remedy(&self) -> Option<String> {
        Some(self.remedy.clone())
    }
}

const NOT_YAML: Code = Code::new("policy-not-yaml");
const NO_POLICY: Code = Code::new("policy-file-empty");
const OTHER_KIND: Code = Code::new("policy-kind");
const INVALID: Code = Code::new("policy-invalid");

/// Reads the policies of a file: YAML or JSON, several documents, lists too.
///
/// `file` is the name that errors show. Nothing is returned of a file with an error in it: a
/// half-read set of policies would take the VFs of the other half away. A node state is an error
/// here, as is a pool of nodes, see [`read_documents`].
pub fn read_policies(text: &str, file: &str) -> Result<PolicyDocuments, PolicyFileError> {
    read(text, file, false)
}

/// Reads the policies, the node states and the pools of nodes of a file, as [`read_policies`] does.
///
/// What the two mean together is for the caller to say: upstream makes the one out of the other.
pub fn read_documents(text: &str, file: &str) -> Result<PolicyDocuments, PolicyFileError> {
    read(text, file, true)
}

fn read(
    text: &str,
    file: &str,
    takes_node_states: bool,
) -> Result<PolicyDocuments, PolicyFileError> {
    let mut reader = Reader {
        file,
        takes_node_states,
        read: PolicyDocuments::default(),
        problems: Vec::new(),
    };
    match yaml::documents(text) {
        Err(error) => reader.problem(error.line, "", error.problem, error.remedy, NOT_YAML),
        Ok(documents) if documents.is_empty() => reader.problem(
            0,
            "",
            "holds no object".to_owned(),
            format!("write a {KIND} of {API_VERSION} into it"),
            NO_POLICY,
        ),
        Ok(documents) => {
            for document in &documents {
                reader.document(document);
            }
        }
    }
    if reader.problems.is_empty() {
        Ok(reader.read)
    } else {
        Err(PolicyFileError {
            problems: reader.problems,
        })
    }
}

/// What the kinds of objects differ in while they are read.
struct Kind {
    /// What messages call such an object.
    word: &'static str,
    /// What its name is a name of.
    named: &'static str,
    /// What to write as a name.
    name_remedy: &'static str,
    schema: &'static [Field],
    /// Says of an unknown field where it belongs, if that is known.
    hint: fn(&str) -> Option<&'static str>,
}

static POLICY: Kind = Kind {
    word: "policy",
    named: "an object",
    name_remedy: OBJECT_NAME_REMEDY,
    schema: &SCHEMA,
    hint: |path| {
        let of_network = |setting: &str| path.ends_with(&format!(".{setting}"));
        let known = OF_NETWORK.into_iter().any(of_network);
        known.then_some("; it is a setting of SriovNetwork")
    },
};

const OBJECT_NAME_REMEDY: &str = "write lower-case letters, digits, '-' and '.', such as rack-a";

struct Reader<'a> {
    file: &'a str,
    takes_node_states: bool,
    read: PolicyDocuments,
    problems: Vec<PolicyProblem>,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node) {
        let version = node.text("apiVersion").unwrap_or_default();
        match (version, node.text("kind").unwrap_or_default()) {
            (API_VERSION, KIND) => self.policy(node),
            (API_VERSION, node_state::KIND) if self.takes_node_states => self.node_state(node),
            (API_VERSION, pool_config::KIND) if self.takes_node_states => self.pool_config(node),
            (
                API_VERSION,
                "SriovNetworkNodePolicyList"
                | "SriovNetworkNodeStateList"
                | "SriovNetworkPoolConfigList",
            )
            | ("v1", "List") => self.list(node),
            (version, kind) => self.other(node, version, kind),
        }
    }

    fn list(&mut self, node: &Node) {
        match node.get("items").map(|items| &items.value) {
            None => {}
            Some(Value::List(items)) => {
                for item in items {
                    // A list in a list is not a thing that kubectl takes either.
                    let version = item.text("apiVersion").unwrap_or_default();
                    match (version, item.text("kind").unwrap_or_default()) {
                        (API_VERSION, KIND) => self.policy(item),
                        (API_VERSION, node_state::KIND) if self.takes_node_states => {
                            self.node_state(item);
                        }
                        (API_VERSION, pool_config::KIND) if self.takes_node_states => {
                            self.pool_config(item);
                        }
                        (version, kind) => self.other(item, version, kind),
                    }
                }
            }
            Some(other) => self.problem(
                node.line_of(&FieldPath::from(["items"])),
                "List",
                format!("items: is {}, not a list", other.kind()),
                "write each object behind `- `".to_owned(),
                INVALID,
            ),
        }
    }

    fn other(&mut self, node: &Node, version: &str, kind: &str) {
        let (field, problem) = if !matches!(node.value, Value::Map(_)) {
            ("", format!("is {}, not an object", node.value.kind()))
        } else if kind.is_empty() {
            (
                "kind",
                format!("the object has no kind, and is not a {KIND}"),
            )
        } else if kind != KIND
            && !(self.takes_node_states && [node_state::KIND, pool_config::KIND].contains(&kind))
        {
            ("kind", format!("kind {} is not a {KIND}", shorten(kind)))
        } else if version.is_empty() {
            ("apiVersion", "the object has no apiVersion".to_owned())
        } else {
            let version = shorten(version);
            (
                "apiVersion",
                format!("apiVersion {version} of {kind} is not known"),
            )
        };
        let remedy = if field == "apiVersion" {
            format!("write apiVersion: {API_VERSION}")
        } else {
            format!(
                "keep only objects with apiVersion: {API_VERSION} and kind: {KIND} in this file"
            )
        };
        let line = node.line_of(&FieldPath::from([field]));
        self.problem(line, "", problem, remedy, OTHER_KIND);
    }

    /// Reads an object of a known kind: what is wrong with it is told, and otherwise `accept` gives it
    /// its meaning.
    fn object<T: DeserializeOwned>(
        &mut self,
        node: &Node,
        kind: &Kind,
        accept: impl FnOnce(&mut Self, T, &Node, &str) -> Vec<FieldProblem>,
    ) {
        let name = node
            .get("metadata")
            .and_then(|metadata| metadata.text("name"));
        let object = name.map_or(format!("{} without a name", kind.word), |name| {
            format!("{} {}", kind.word, shorten(name))
        });
        let mut problems = Vec::new();
        if !name.is_some_and(is_object_name) {
            problems.push(FieldProblem {
                path: FieldPath::from(["metadata", "name"]),
                problem: name.map_or("is required".to_owned(), |name| {
                    format!("{:?} is not a name of {}", shorten(name), kind.named)
                }),
                remedy: kind.name_remedy.to_owned(),
            });
        }
        let found = schema::check(node, kind.schema);
        for unknown in found.unknown {
            let path = unknown.path.to_string();
            let hint = match unknown.guess {
                Some(guess) => format!("; did you mean {guess}?"),
                None => (kind.hint)(&path).unwrap_or_default().to_owned(),
            };
            let text = format!("unknown field {} is ignored{hint}", shorten(&path));
            self.warn(node.line_of(&unknown.path), &object, text);
        }
        problems.extend(found.problems);
        if problems.is_empty() {
            problems = match serde_json::from_value(node.to_json()) {
                Ok(wire) => accept(self, wire, node, &object),
                Err(error) => vec![FieldProblem {
                    path: FieldPath::default(),
                    problem: error.to_string(),
                    remedy: "compare it with the CRD".to_owned(),
                }],
            };
        }
        for FieldProblem {
            path,
            problem,
            remedy,
        } in problems
        {
            let line = node.line_of(&path);
            self.problem(line, &object, format!("{path}: {problem}"), remedy, INVALID);
        }
    }

    fn policy(&mut self, node: &Node) {
        self.object(node, &POLICY, Self::accept_policy);
    }

    /// Keeps a policy that fits the schema, unless something is wrong with it.
    fn accept_policy(
        &mut self,
        wire: SriovNetworkNodePolicy,
        node: &Node,
        object: &str,
    ) -> Vec<FieldProblem> {
        let mut policy = match NodePolicy::try_from(&wire) {
            Ok(policy) => policy,
            Err(invalid) => return invalid.problems,
        };
        let broken = review_node_policy(&wire, &policy);
        if !broken.is_empty() {
            return broken;
        }
        if wire.spec.bridge.is_some_and(|bridge| bridge.ovs.is_some()) {
            let path = FieldPath::from(["spec", "bridge", "ovs"]);
            let text = format!("{path} is ignored: software bridges are not managed");
            self.warn(node.line_of(&path), object, text);
        }
        policy.origin = self.origin(node.line);
        self.read.policies.push(policy);
        Vec::new()
    }

    fn origin(&self, line: u64) -> Origin {
        Origin {
            file: self.file.to_owned(),
            line,
        }
    }

    fn warn(&mut self, line: u64, object: &str, text: String) {
        let origin = self.origin(line);
        if self.read.warnings.len() < MAX_REPORTED {
            self.read.warnings.push(Warning {
                origin,
                object: object.to_owned(),
                text,
            });
        }
    }

    fn problem(&mut self, line: u64, object: &str, problem: String, remedy: String, code: Code) {
        let origin = self.origin(line);
        if self.problems.len() < MAX_REPORTED {
            self.problems.push(PolicyProblem {
                origin,
                object: object.to_owned(),
                problem,
                remedy,
                code,
            });
        }
    }
}

/// Is this a name that the API server takes (RFC 1123 subdomain)?
fn is_object_name(name: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(edge)
                && bytes.last().is_some_and(edge)
                && bytes.iter().all(|b| edge(b) || *b == b'-')
        })
}
