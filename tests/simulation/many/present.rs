//! Who is present on a topic, as a peer is told: by the list, and by each who comes and goes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::peer::Surroundings;
use super::super::records::Records;
use super::super::topics::{Target, topic_number};
use super::Many;

impl Many {
    pub(super) fn take_change(
        &mut self,
        answer: &Value,
        is_join: bool,
        around: &mut Surroundings<'_>,
    ) {
        let topic = topic_number(answer["topic"].as_str().expect("a topic"));
        assert!(
            self.live.contains_key(&Target::Topic(topic)),
            "of no subscription: {answer}"
        );
        around.cover.add(if is_join { "join" } else { "leave" }, 1);
        let Some(present) = self.present.get_mut(&topic) else {
            return;
        };
        let name = answer["connection"].as_str().expect("a connection");
        let is_news = match is_join {
            true => present.insert(name.to_owned()),
            false => present.remove(name),
        };
        assert!(is_news, "{answer}, and {present:?} are here");
    }

    /// What was known of a topic is not, until the list is asked for.
    pub(super) fn take_skipped(&mut self, answer: &Value, around: &mut Surroundings<'_>) {
        let topic = topic_number(answer["topic"].as_str().expect("a topic"));
        assert!(
            self.live.contains_key(&Target::Topic(topic)),
            "of no subscription: {answer}"
        );
        assert!(answer["members"].as_u64().is_some(), "{answer}");
        around.cover.add("joins and leaves left out", 1);
        self.present.remove(&topic);
    }

    /// At rest, nobody is known to be present where there is no presence any more.
    pub fn check_presence(&self, records: &Records) {
        for (topic, present) in &self.present {
            let is_over = !records.rules[*topic].presence && records.tells_presence;
            assert!(
                !is_over || present.is_empty(),
                "{present:?} have not left topic {topic}"
            );
        }
    }

    pub(super) fn take_list(
        &mut self,
        (own_id, asked_ms): (usize, u64),
        topic: usize,
        answer: &Value,
        around: &mut Surroundings<'_>,
    ) {
        let members = answer["members"].as_array().expect("a list");
        let names = members.iter().map(|member| member["connection"].as_str());
        let names: Option<BTreeSet<String>> = names.map(|name| name.map(str::to_owned)).collect();
        let names = names.expect("each member has a name");
        assert_eq!(names.len(), members.len(), "twice in {answer}");
        let total = answer["total"].as_u64().expect("a number");
        assert!(total >= names.len() as u64, "{answer}");
        self.probed.entry(topic).or_default().0 = Some(total);
        let records = &*around.records;
        assert!(
            records.may_have_presence(topic, asked_ms, around.now_ms),
            "it has none: {answer}"
        );
        let Some(view) = self.live.get(&Target::Topic(topic)) else {
            return;
        };
        // Who subscribed while there was none is not present.
        let since_ms = records.views[*view].asked_ms;
        let may_lack = records.may_lack_presence(topic, since_ms, around.now_ms);
        around.cover.add("list of those present", 1);
        let is_own = |member: &&Value| member["info"]["peer"] == own_id;
        let own = members.iter().filter(is_own).count();
        let is_whole = total == members.len() as u64;
        assert!(
            own == 1 || own == 0 && (!is_whole || may_lack),
            "{own_id} subscribes: {answer}"
        );
        if let Some(known) = self.present.insert(topic, names.clone()) {
            around.cover.add("list that was foretold", 1);
            let adds_up = known == names || around.records.skips_presence;
            assert!(
                adds_up,
                "{known:?} by joins and leaves, {names:?} by the list"
            );
        }
    }
}
