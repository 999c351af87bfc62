//! Results before 0.3.0: at most one address of each family, with its routes.

use std::net::IpAddr;

use model::InterfaceAddress;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AddResult, Dns, Ip, Route, null_as_default};
use crate::cni::version::CniVersion;

#[derive(Deserialize)]
struct Legacy {
    #[serde(default)]
    ip4: Option<OneIp>,
    #[serde(default)]
    ip6: Option<OneIp>,
    #[serde(default, deserialize_with = "null_as_default")]
    dns: Dns,
}

#[derive(Serialize, Deserialize)]
struct OneIp {
    ip: InterfaceAddress,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::optional_address"
    )]
    gateway: Option<IpAddr>,
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    routes: Vec<Hop>,
}

#[derive(Serialize, Deserialize)]
struct Hop {
    dst: InterfaceAddress,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "super::optional_address"
    )]
    gw: Option<IpAddr>,
}

pub(super) fn read(value: Value) -> Result<AddResult, serde_json::Error> {
    let legacy: Legacy = serde_json::from_value(value)?;
    let mut result = AddResult {
        dns: legacy.dns,
        ..AddResult::default()
    };
    for one in [legacy.ip4, legacy.ip6].into_iter().flatten() {
        result.ips.push(Ip {
            interface: None,
            address: one.ip,
            gateway: one.gateway,
        });
        result
            .routes
            .extend(one.routes.into_iter().map(|hop| Route {
                dst: hop.dst,
                gw: hop.gw,
                mtu: 0,
                advmss: 0,
                priority: 0,
                table: None,
                scope: None,
            }));
    }
    Ok(result)
}

pub(super) fn write(result: &AddResult, version: CniVersion) -> Value {
    let first = |v6: bool| {
        let ip = result
            .ips
            .iter()
            .find(|ip| ip.address.address().is_ipv6() == v6)?;
        let routes = result
            .routes
            .iter()
            .filter(|route| route.dst.address().is_ipv6() == v6);
        Some(OneIp {
            ip: ip.address,
            gateway: ip.gateway,
            routes: routes
                .map(|route| Hop {
                    dst: route.dst,
                    gw: route.gw,
                })
                .collect(),
        })
    };
    let mut value = json!({"cniVersion": version.as_str(), "dns": result.dns});
    if let Some(object) = value.as_object_mut() {
        for (key, one) in [("ip4", first(false)), ("ip6", first(true))] {
            if let Some(one) = one {
                object.insert(key.to_owned(), json!(one));
            }
        }
    }
    value
}
