//! Where a kubelet finds its API server: `clusters[].cluster.server` of a kubeconfig.
//!
//! Nothing else of the file is looked at, least of all its credentials.

use std::net::IpAddr;

use crate::yaml::{self, Value};

/// Most clusters of one file that are believed.
const MOST_CLUSTERS: usize = 64;
/// Longest name of a host (RFC 1035).
const LONGEST_NAME: usize = 253;

/// An API server as a kubeconfig names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiServer {
    /// By its address.
    Address(IpAddr),
    /// By a name, in lower case, which somebody has to look up.
    Name(String),
}

/// A kubeconfig that names no API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKubeconfigError {
    /// It is not YAML.
    #[error("line {line}: {problem}")]
    NotYaml {
        /// The line; 0 when there is none to name.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// It has no cluster with a server that can be understood.
    #[error("no clusters[].cluster.server is the URL of an API server")]
    NoServer,
}

/// Reads the API servers of a kubeconfig; there is at least one.
pub fn api_servers(text: &str) -> Result<Vec<ApiServer>, ParseKubeconfigError> {
    let documents = yaml::documents(text).map_err(|error| ParseKubeconfigError::NotYaml {
        line: error.line,
        problem: error.problem,
    })?;
    let mut servers = Vec::new();
    for document in &documents {
        let Some(Value::List(clusters)) = document.get("clusters").map(|node| &node.value) else {
            continue;
        };
        for cluster in clusters.iter().take(MOST_CLUSTERS) {
            let url = cluster
                .get("cluster")
                .and_then(|cluster| cluster.text("server"));
            if let Some(server) = url.and_then(server_of)
                && !servers.contains(&server)
            {
                servers.push(server);
            }
        }
    }
    if servers.is_empty() {
        Err(ParseKubeconfigError::NoServer)
    } else {
        Ok(servers)
    }
}

/// Reads the host of `https://host:port/path`.
fn server_of(url: &str) -> Option<ApiServer> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .unwrap_or(url);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.strip_prefix('[') {
        Some(v6) => {
            let address = v6.split_once(']')?.0.parse().ok()?;
            return Some(ApiServer::Address(IpAddr::V6(address)));
        }
        None => authority.split(':').next()?,
    };
    if let Ok(address) = host.parse() {
        return Some(ApiServer::Address(address));
    }
    let fits = (1..=LONGEST_NAME).contains(&host.len())
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    fits.then(|| ApiServer::Name(host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let servers = api_servers(text).unwrap();
        let text = |server: &ApiServer| match server {
            ApiServer::Address(address) => address.to_string(),
            ApiServer::Name(name) => name.clone(),
        };
        servers.iter().map(text).collect()
    }

    #[test]
    fn what_kubeadm_writes_is_read() {
        let text = include_str!("../corpus/kubeconfig/kubeadm.yaml");
        assert_eq!(told(text), ["10.0.0.1"]);
    }

    #[test]
    fn names_and_ipv6_addresses_are_told_apart() {
        for (url, server) in [
            ("https://API.example.org:6443", "api.example.org"),
            ("https://[fd00::1]:6443", "fd00::1"),
            ("https://127.0.0.1", "127.0.0.1"),
            ("http://lb:8080/k8s/clusters/c-1", "lb"),
        ] {
            let text = format!("clusters: [{{cluster: {{server: '{url}'}}}}]");
            assert_eq!(told(&text), [server], "{url}");
        }
    }

    #[test]
    fn a_file_without_a_server_is_an_error() {
        for text in [
            "",
            "clusters: []",
            "clusters: {cluster: {server: 'https://a'}}",
            "clusters: [{cluster: {server: 'https://[fd00::1'}}]",
            "clusters: [{cluster: {server: 'https://a b'}}]",
        ] {
            assert_eq!(
                api_servers(text),
                Err(ParseKubeconfigError::NoServer),
                "{text}"
            );
        }
        assert!(matches!(
            api_servers("a: [\n"),
            Err(ParseKubeconfigError::NotYaml { .. })
        ));
    }
}
