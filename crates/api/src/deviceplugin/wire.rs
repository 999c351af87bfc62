//! A pool as it was written: the fields that were found, each of the right JSON type.

use std::collections::BTreeMap;

use super::json::{self, Json};
use crate::{FieldPath, FieldProblem};

/// A pool. What is absent, `null` or of the wrong type is `None`; the latter is a problem too.
#[derive(Debug, Default)]
pub(super) struct PoolSpec {
    pub(super) resource_name: Option<String>,
    pub(super) resource_prefix: Option<String>,
    pub(super) device_type: Option<String>,
    pub(super) exclude_topology: bool,
    pub(super) selectors: Option<Vec<SelectorSpec>>,
    pub(super) additional_info: Option<BTreeMap<String, BTreeMap<String, String>>>,
    pub(super) check_health_on_pf: bool,
    /// First generation.
    pub(super) root_devices: Option<Vec<String>>,
    /// First generation.
    pub(super) sriov_mode: bool,
    /// v3.0 to v3.2; the default of each selector.
    pub(super) is_rdma: Option<bool>,
    /// Ours.
    pub(super) preferred_allocation: Option<String>,
    /// Ours.
    pub(super) pci_classes: Option<Vec<String>>,
    /// Ours.
    pub(super) iommufd: bool,
    /// Ours.
    pub(super) offer_used_by_node: bool,
}

/// A selector.
#[derive(Debug, Default)]
pub(super) struct SelectorSpec {
    /// The lists that have at least one value; an empty one is no filter.
    pub(super) lists: BTreeMap<&'static str, Vec<String>>,
    pub(super) is_rdma: Option<bool>,
    pub(super) vdpa_type: Option<String>,
    pub(super) need_vhost_net: bool,
}

/// Most items of a list: one for each of the VFs of a node, and then some.
const LONGEST_LIST: usize = 4096;

/// The fields of a selector that are lists of strings.
pub(super) const LISTS: [&str; 11] = [
    "vendors",
    "devices",
    "drivers",
    "auxTypes",
    "pciAddresses",
    "acpiIndexes",
    "pfNames",
    "rootDevices",
    "linkTypes",
    "ddpProfiles",
    "pKeys",
];

impl PoolSpec {
    pub(super) fn read(json: &Json, path: &FieldPath, problems: &mut Vec<FieldProblem>) -> Self {
        let Some(mut fields) = Fields::of(json, path, problems) else {
            return Self::default();
        };
        Self {
            resource_name: fields.text("resourceName"),
            resource_prefix: fields.text("resourcePrefix"),
            device_type: fields.text("deviceType"),
            exclude_topology: fields.flag("excludeTopology").unwrap_or_default(),
            additional_info: fields.additional_info(),
            check_health_on_pf: fields.flag("checkHealthOnPf").unwrap_or_default(),
            root_devices: fields.texts("rootDevices"),
            sriov_mode: fields.flag("sriovMode").unwrap_or_default(),
            is_rdma: fields.flag("isRdma"),
            preferred_allocation: fields.text("preferredAllocation"),
            pci_classes: fields.texts("pciClasses"),
            iommufd: fields.flag("iommufd").unwrap_or_default(),
            offer_used_by_node: fields.flag("offerUsedByNode").unwrap_or_default(),
            selectors: fields.selectors(),
        }
    }

    /// Returns the resource name as it would be, good or not.
    pub(super) fn full_name(&self, default_prefix: &str) -> Option<String> {
        let name = self.resource_name.as_ref()?;
        let prefix = self.resource_prefix.as_deref();
        let prefix = prefix.filter(|prefix| !prefix.is_empty());
        Some(format!("{}/{name}", prefix.unwrap_or(default_prefix)))
    }
}

impl SelectorSpec {
    fn read(json: &Json, path: &FieldPath, problems: &mut Vec<FieldProblem>) -> Self {
        let Some(mut fields) = Fields::of(json, path, problems) else {
            return Self::default();
        };
        let mut lists = BTreeMap::new();
        for key in LISTS {
            if let Some(values) = fields.texts(key).filter(|values| !values.is_empty()) {
                lists.insert(key, values);
            }
        }
        Self {
            lists,
            is_rdma: fields.flag("isRdma"),
            vdpa_type: fields.text("vdpaType"),
            need_vhost_net: fields.flag("needVhostNet").unwrap_or_default(),
        }
    }
}

/// The fields of one object, and where to tell what is wrong with them.
struct Fields<'a> {
    fields: &'a [(String, Json)],
    path: &'a FieldPath,
    problems: &'a mut Vec<FieldProblem>,
}

impl<'a> Fields<'a> {
    fn of(
        json: &'a Json,
        path: &'a FieldPath,
        problems: &'a mut Vec<FieldProblem>,
    ) -> Option<Self> {
        if let Json::Object(fields) = json {
            return Some(Self {
                fields,
                path,
                problems,
            });
        }
        problems.push(mistyped(path.clone(), json, "an object"));
        None
    }

    fn get(&self, key: &str) -> Option<&'a Json> {
        json::field(self.fields, key)
    }

    fn mistyped(&mut self, path: FieldPath, json: &Json, wanted: &str) {
        self.problems.push(mistyped(path, json, wanted));
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            Json::Text(text) => Some(text.clone()),
            other => {
                self.mistyped(self.path.key(key), other, "a string");
                None
            }
        }
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Json::Bool(value) => Some(*value),
            other => {
                self.mistyped(self.path.key(key), other, "true or false");
                None
            }
        }
    }

    fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let path = self.path.key(key);
        let Json::List(items) = self.get(key)? else {
            let other = self.get(key)?;
            self.mistyped(path, other, "a list of strings");
            return None;
        };
        let mut texts = Vec::new();
        if !self.fits(&path, items) {
            return None;
        }
        for (index, item) in items.iter().enumerate() {
            match item {
                Json::Text(text) => texts.push(text.clone()),
                // Go makes an empty string of it, which matches nothing.
                Json::Null => texts.push(String::new()),
                other => self.mistyped(path.index(index), other, "a string"),
            }
        }
        Some(texts)
    }

    /// Is a list short enough? Some are compared item by item.
    fn fits(&mut self, path: &FieldPath, items: &[Json]) -> bool {
        let fits = items.len() <= LONGEST_LIST;
        if !fits {
            self.problems.push(FieldProblem {
                path: path.clone(),
                problem: format!("{} items, {LONGEST_LIST} are the most", items.len()),
                remedy: "select by PF or by driver instead".to_owned(),
            });
        }
        fits
    }

    fn selectors(&mut self) -> Option<Vec<SelectorSpec>> {
        let path = self.path.key("selectors");
        match self.get("selectors")? {
            Json::List(items) if items.is_empty() => {
                self.problems.push(FieldProblem {
                    path,
                    problem: "the list is empty, so no device could be in the pool".to_owned(),
                    remedy: "write {} for every device, or remove the pool".to_owned(),
                });
                None
            }
            Json::List(items) => {
                if !self.fits(&path, items) {
                    return None;
                }
                let read =
                    |(index, item)| SelectorSpec::read(item, &path.index(index), self.problems);
                Some(items.iter().enumerate().map(read).collect())
            }
            one @ Json::Object(_) => Some(vec![SelectorSpec::read(one, &path, self.problems)]),
            other => {
                self.mistyped(path, other, "an object or a list of objects");
                None
            }
        }
    }

    fn additional_info(&mut self) -> Option<BTreeMap<String, BTreeMap<String, String>>> {
        let path = self.path.key("additionalInfo");
        let Json::Object(entries) = self.get("additionalInfo")? else {
            let other = self.get("additionalInfo")?;
            self.mistyped(path, other, "an object of objects of strings");
            return None;
        };
        let mut info = BTreeMap::new();
        for (key, entry) in entries.iter().filter(|(_, entry)| *entry != Json::Null) {
            let path = path.key(key);
            let Json::Object(values) = entry else {
                self.mistyped(path, entry, "an object of strings");
                continue;
            };
            let into: &mut BTreeMap<String, String> = info.entry(key.clone()).or_default();
            for (name, value) in values {
                match value {
                    Json::Text(text) => drop(into.insert(name.clone(), text.clone())),
                    Json::Null => drop(into.insert(name.clone(), String::new())),
                    other => self.mistyped(path.key(name), other, "a string"),
                }
            }
        }
        Some(info)
    }
}

fn mistyped(path: FieldPath, json: &Json, wanted: &str) -> FieldProblem {
    FieldProblem {
        path,
        problem: format!("it is {}", json.kind()),
        remedy: format!("write {wanted}"),
    }
}
