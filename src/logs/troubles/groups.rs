//! Equal troubles, counted.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::logs::troubles::Trouble;

/// Groups that are kept apart. A log with more kinds of errors is read otherwise.
const MAX_GROUPS: usize = 500;
/// Processes that are named.
const MAX_PROCESSES: usize = 20;

/// All occurrences of one trouble.
#[derive(Debug, Clone)]
pub struct Group {
    pub fingerprint: String,
    pub count: usize,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub processes: BTreeSet<String>,
    /// The first one.
    pub example: Trouble,
}

/// The groups, in the order in which they were first seen.
#[derive(Debug, Default)]
pub struct Groups {
    pub list: Vec<Group>,
    /// Occurrences that had no group left to go to.
    pub others: usize,
}

impl Groups {
    /// Counts this one. Answers how often it was seen.
    pub fn add(&mut self, trouble: &Trouble) -> usize {
        let fingerprint = trouble.fingerprint();
        if let Some(group) = self.list.iter_mut().find(|group| group.fingerprint == fingerprint) {
            group.count += 1;
            group.first_seen = group.first_seen.min(trouble.at);
            group.last_seen = group.last_seen.max(trouble.at);
            if group.processes.len() < MAX_PROCESSES {
                group.processes.insert(trouble.process.clone());
            }
            return group.count;
        }
        if self.list.len() >= MAX_GROUPS {
            self.others += 1;
            return 1;
        }
        self.list.push(Group {
            fingerprint,
            count: 1,
            first_seen: trouble.at,
            last_seen: trouble.at,
            processes: BTreeSet::from([trouble.process.clone()]),
            example: trouble.clone(),
        });
        1
    }

    /// All occurrences.
    pub fn total(&self) -> usize {
        self.list.iter().map(|group| group.count).sum::<usize>() + self.others
    }

    pub fn get(&self, fingerprint: &str) -> Option<&Group> {
        self.list.iter().find(|group| group.fingerprint == fingerprint)
    }
}

impl Group {
    /// `web.1, web.2`
    pub fn places(&self) -> String {
        self.processes.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    pub fn document(&self) -> Value {
        json!({
            "class": self.example.class.name(),
            "name": self.example.name,
            "message": self.example.message,
            "count": self.count,
            "first_seen": self.first_seen.to_string(),
            "last_seen": self.last_seen.to_string(),
            "processes": self.processes,
            "stuck": self.example.stuck,
            "fingerprint": self.fingerprint,
            "example": self.example.lines,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Groups, MAX_GROUPS};
    use crate::logs::troubles::{Class, Trouble};
    use jiff::Timestamp;

    fn trouble(second: i64, process: &str, message: &str) -> Trouble {
        Trouble {
            at: Timestamp::from_second(second).unwrap(),
            process: process.to_owned(),
            class: Class::Exception,
            name: "SomeError".to_owned(),
            message: message.to_owned(),
            request: None,
            lines: Vec::new(),
            stuck: false,
        }
    }

    #[test]
    fn equal_troubles_are_one_group() {
        let mut groups = Groups::default();
        // Lines come out of order.
        let counts = [(5, "web.2", "post 1"), (3, "web.1", "post 2"), (9, "web.1", "user 1")]
            .map(|(second, process, message)| groups.add(&trouble(second, process, message)));
        assert_eq!(counts, [1, 2, 1]);
        let first = &groups.list[0];
        assert_eq!((first.first_seen.as_second(), first.last_seen.as_second()), (3, 5));
        assert_eq!(first.places(), "web.1, web.2");
        assert_eq!(groups.total(), 3);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut groups = Groups::default();
        for number in 0..MAX_GROUPS + 7 {
            let word: String = number.to_string().bytes().map(|digit| char::from(digit + 49)).collect();
            groups.add(&trouble(0, "web.1", &word));
        }
        assert_eq!((groups.list.len(), groups.others, groups.total()), (MAX_GROUPS, 7, MAX_GROUPS + 7));
    }
}
