//! What else the repository lists: tags, custom property definitions, users, licence. They follow from tasks and plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{Site, task::named_guid};
use crate::sense::simulator::{
    clock::{Calendar, NEVER},
    plan::{Plan, Role, UserPlan},
};

/// The lists.
#[derive(Debug)]
pub struct Subjects;

fn dated(id: &str, calendar: Calendar, further: Value) -> Arc<Value> {
    let date = calendar.qrs(0);
    let mut value = json!({ "id": id, "createdDate": date, "modifiedDate": date,
        "modifiedByUserName": r"INTERNAL\sa_repository" });
    if let (Value::Object(fields), Value::Object(further)) = (&mut value, further) {
        fields.extend(further);
    }
    Arc::new(value)
}

impl Subjects {
    /// Every stream an app is published to.
    pub fn streams(site: &Site) -> Vec<Arc<Value>> {
        let names: BTreeSet<&str> = site.apps.iter().filter_map(|app| app.stream.as_deref()).collect();
        let row = |name: &&str| {
            let id = named_guid("stream", name).to_string();
            dated(&id, site.calendar, json!({ "name": name, "privileges": null, "schemaPath": "Stream" }))
        };
        names.iter().map(row).collect()
    }

    /// Every tag a task has.
    pub fn tags(site: &Site) -> Vec<Arc<Value>> {
        let names: BTreeSet<String> = site.used_names().1.into_iter().collect();
        let row = |name: &String| {
            let id = named_guid("tag", name).to_string();
            dated(&id, site.calendar, json!({ "name": name, "privileges": null, "schemaPath": "Tag" }))
        };
        names.iter().map(row).collect()
    }

    /// Every custom property a task has, with the values that occur.
    pub fn properties(site: &Site) -> Vec<Arc<Value>> {
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, value) in site.used_names().0 {
            values.entry(name).or_default().insert(value);
        }
        let row = |(name, values): (&String, &BTreeSet<String>)| {
            let id = named_guid("definition", name).to_string();
            let further = json!({ "name": name, "valueType": "Text", "description": "", "choiceValues": values,
                "objectTypes": ["ReloadTask", "ExternalProgramTask", "UserSyncTask"], "privileges": null,
                "schemaPath": "CustomPropertyDefinition" });
            dated(&id, site.calendar, further)
        };
        values.iter().map(row).collect()
    }

    /// The users of the plan.
    pub fn users(plan: &Plan, calendar: Calendar) -> Vec<Arc<Value>> {
        plan.users.iter().map(|user| Self::user(user, calendar)).collect()
    }

    fn user(user: &UserPlan, calendar: Calendar) -> Arc<Value> {
        let roles: &[&str] = match user.role {
            Role::Admin => &["RootAdmin"],
            Role::ContentAdmin => &["ContentAdmin"],
            Role::None | Role::Inactive => &[],
        };
        let id = named_guid("user", &format!("{}\\{}", user.directory, user.id)).to_string();
        let further = json!({ "customProperties": [], "userId": user.id, "userDirectory": user.directory,
            "name": user.id, "roles": roles, "attributes": [], "inactive": user.role == Role::Inactive,
            "removedExternally": false, "blacklisted": false, "deleteProhibited": false, "tags": [],
            "privileges": null, "schemaPath": "User" });
        dated(&id, calendar, further)
    }

    /// The licence: unlimited, invented.
    pub fn licence(calendar: Calendar) -> Arc<Value> {
        let id = named_guid("license", "simulated").to_string();
        let further = json!({ "lef": "", "serial": "0000000000000000", "name": "simulated site",
            "organization": "none", "product": 0, "numberOfCores": -1, "isExpired": false, "expiredReasonId": "",
            "isBlacklisted": false, "isInvalid": false, "expiry": NEVER, "privileges": null,
            "schemaPath": "License" });
        dated(&id, calendar, further)
    }
}
