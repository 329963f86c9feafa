//! Did the restart really happen? Makes the proof that pays. Pure.
//!
//! Ids carry the proof, times only support it: no process that was listed after the change is left, and each one that is
//! there was created at or after the moment of that list, both by the platform's own clock.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::config::Types;
use crate::debt::Fresh;
use crate::dynos::{Dyno, DynoList, Formation};

/// That no process of the configured types is left that may have begun before the last schema change. Only this module
/// makes one, and nothing is cleared without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    at: Timestamp,
}

impl Proof {
    /// By the platform's clock: what was created earlier may be older than the schema. The moment of the list from which the
    /// suspects were taken, or the creation of an earlier process that is known to be new.
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

/// The processes that have to go: those that were listed after the change, whenever they began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspects {
    /// As they were listed.
    pub dynos: Vec<Dyno>,
    /// Those that an earlier list had.
    earlier: Vec<Dyno>,
    since: Timestamp,
    types: Types,
    known: Option<Known>,
}

/// By what else than the list some processes are known to be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// They run this release or a later one, whose release phase made the change.
    ByRelease(u64),
    /// They were created after the list of the last proof, and the versions have not moved since.
    ByProof(Fresh),
}

/// Why it is not proved yet, for people.
pub type Reasons = Vec<String>;

impl Suspects {
    /// All processes of `types` in a list that was asked for after the change; less those that are known to be new.
    pub fn of(list: &DynoList, types: &Types, known: Option<Known>) -> Self {
        let mut suspects =
            Self { dynos: Vec::new(), earlier: Vec::new(), since: list.date, types: types.clone(), known };
        let ours = list.dynos.iter().filter(|dyno| types.include(&dyno.kind));
        suspects.dynos = ours.filter(|dyno| !suspects.is_new(dyno)).cloned().collect();
        // web.2 before web.10; Fir's names have no number and sort by themselves.
        suspects.dynos.sort_by_cached_key(|dyno| (dyno.kind.clone(), dyno.name.len(), dyno.name.clone()));
        suspects
    }

    /// Whatever an earlier list had is as old, should the later one have left it out.
    #[must_use]
    pub fn with_earlier(mut self, list: &DynoList) -> Self {
        let ours = list.dynos.iter().filter(|dyno| self.types.include(&dyno.kind) && !self.is_new(dyno));
        self.earlier = ours.cloned().collect();
        self
    }

    /// A release says which processes are new.
    pub fn by_release(&self) -> bool {
        matches!(self.known, Some(Known::ByRelease(_)))
    }

    fn is_new(&self, dyno: &Dyno) -> bool {
        match &self.known {
            Some(Known::ByRelease(carrier)) => dyno.release.is_some_and(|release| release >= *carrier),
            Some(Known::ByProof(fresh)) => fresh.knows(&dyno.kind, dyno.created_at.as_second()),
            None => false,
        }
    }

    /// The process types that have a suspect, and for each whether every one of its dynos in `list` is one.
    pub fn targets<'a>(&'a self, list: &DynoList) -> Vec<(&'a str, bool)> {
        let kinds: BTreeSet<&str> = self.dynos.iter().map(|dyno| dyno.kind.as_str()).collect();
        let whole = |kind: &str| list.dynos.iter().filter(|d| d.kind == kind).all(|d| self.knows(d));
        kinds.into_iter().map(|kind| (kind, whole(kind))).collect()
    }

    fn knows(&self, dyno: &Dyno) -> bool {
        self.known_old().any(|old| old.id == dyno.id)
    }

    fn known_old(&self) -> impl Iterator<Item = &Dyno> {
        self.dynos.iter().chain(&self.earlier)
    }

    /// The suspects that are still there and alive. A dyno that is crashed, down or idle has no process to be stuck.
    fn left<'a>(&self, list: &'a DynoList) -> Vec<&'a Dyno> {
        list.dynos.iter().filter(|dyno| self.knows(dyno) && has_process(dyno)).collect()
    }

    /// Those that no suspect's id gives away, but that began before the list of suspects was made: it was an old one, or the
    /// platform's two clocks disagree.
    fn too_early<'a>(&self, list: &'a DynoList) -> impl Iterator<Item = &'a Dyno> {
        list.dynos.iter().filter(|dyno| {
            let unknown = self.types.include(&dyno.kind) && !self.knows(dyno) && !self.is_new(dyno);
            unknown && dyno.created_at < self.since && has_process(dyno)
        })
    }

    /// Whatever a restart has not reached, or not late enough.
    pub fn to_restart_again<'a>(&self, list: &'a DynoList) -> Vec<&'a Dyno> {
        self.left(list).into_iter().chain(self.too_early(list)).collect()
    }

    /// Makes the proof from a list, or says what is in its way. `formation` is what the app wants to run: a list that is
    /// shorter than that may lack the very process that is stuck.
    pub fn judge(&self, list: &DynoList, formation: Option<&[Formation]>) -> Result<Proof, Reasons> {
        let mut reasons: Reasons = self
            .left(list)
            .iter()
            .map(|dyno| format!("{} is still the old process ({})", dyno.name, dyno.state))
            .collect();
        if list.date < self.since {
            reasons.push("the platform answered with an old list".into());
        }
        for dyno in self.too_early(list) {
            reasons.push(format!("{} began before the list of old processes was made", dyno.name));
        }
        reasons.extend(formation.into_iter().flat_map(|formation| self.missing(list, formation)));
        if reasons.is_empty() { Ok(Proof { at: self.earliest_new(list) }) } else { Err(reasons) }
    }

    /// How the list falls short of the formation, or the formation of what was seen.
    fn missing(&self, list: &DynoList, formation: &[Formation]) -> Reasons {
        let mut reasons = Reasons::new();
        for wanted in formation.iter().filter(|wanted| self.types.include(&wanted.kind)) {
            let ids: BTreeSet<&str> =
                list.dynos.iter().filter(|dyno| dyno.kind == wanted.kind).map(|dyno| dyno.id.as_str()).collect();
            if ids.len() as u64 != wanted.quantity {
                reasons.push(format!("{} of {} {} dynos are listed", ids.len(), wanted.quantity, wanted.kind));
            }
        }
        let kinds: BTreeSet<&str> = self.known_old().map(|dyno| dyno.kind.as_str()).collect();
        for kind in kinds.into_iter().filter(|kind| Types::All.include(kind)) {
            if !formation.iter().any(|wanted| wanted.kind == kind) {
                reasons.push(format!("the formation does not tell how many {kind} dynos are to run"));
            }
        }
        reasons
    }

    /// Where some processes are known to be new although they are older than the list, the change is older than they are.
    fn earliest_new(&self, list: &DynoList) -> Timestamp {
        let ours = list.dynos.iter().filter(|dyno| self.types.include(&dyno.kind) && self.is_new(dyno));
        ours.map(|dyno| dyno.created_at).fold(self.since, Timestamp::min)
    }

    /// Which of the suspects were replaced, by name, with the state of what runs under that name now.
    pub fn replaced(&self, list: &DynoList) -> Vec<Replaced> {
        self.dynos
            .iter()
            .map(|old| {
                let now = list.dynos.iter().find(|dyno| dyno.name == old.name);
                Replaced {
                    name: old.name.clone(),
                    kind: old.kind.clone(),
                    replaced: !list.dynos.iter().any(|dyno| dyno.id == old.id),
                    state: now.map(|dyno| dyno.state.clone()),
                }
            })
            .collect()
    }
}

/// What became of one suspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub name: String,
    pub kind: String,
    pub replaced: bool,
    /// The state of the dyno that has this name now, if one has.
    pub state: Option<String>,
}

/// Whether a process may run in this dyno. An unknown state may hide one.
fn has_process(dyno: &Dyno) -> bool {
    !matches!(dyno.state.as_str(), "crashed" | "down" | "idle")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn dyno(id: &str, name: &str, state: &str, created: i64) -> Dyno {
        let kind = name.split('.').next().unwrap().to_owned();
        Dyno { id: id.into(), name: name.into(), kind, state: state.into(), created_at: at(created), release: Some(7) }
    }

    fn list(date: i64, dynos: &[Dyno]) -> DynoList {
        DynoList { dynos: dynos.to_vec(), date: at(date) }
    }

    fn web(quantity: u64) -> Vec<Formation> {
        vec![Formation { kind: "web".into(), quantity, command: String::new() }]
    }

    #[test]
    fn what_proves_a_restart() {
        let types = Types::Named(vec!["web".into()]);
        let before =
            list(100, &[dyno("a", "web.1", "up", 10), dyno("b", "web.2", "up", 10), dyno("w", "worker.1", "up", 10)]);
        let suspects = Suspects::of(&before, &types, None);
        let new_1 = dyno("c", "web.1", "starting", 101);
        let new_2 = dyno("d", "web.2", "starting", 100);
        for (what, dynos, date, quantity, proved) in [
            (
                "both are new; the worker is none of our types",
                vec![new_1.clone(), new_2.clone(), before.dynos[2].clone()],
                103,
                2,
                true,
            ),
            ("one is still the old one", vec![new_1.clone(), before.dynos[1].clone()], 103, 2, false),
            ("the list lacks one", vec![new_1.clone()], 103, 2, false),
            (
                "a dyno that was not listed is older than the list",
                vec![new_1.clone(), dyno("x", "web.2", "up", 99)],
                103,
                2,
                false,
            ),
            (
                "an old dyno that crashed has no process",
                vec![new_1.clone(), dyno("b", "web.2", "crashed", 10)],
                103,
                2,
                true,
            ),
            ("the list has one twice in place of the other", vec![new_1.clone(), new_1.clone()], 103, 2, false),
            ("scaled to nothing", vec![], 103, 0, true),
            ("the list is older than the suspects'", vec![new_1, new_2], 99, 2, false),
        ] {
            assert_eq!(suspects.judge(&list(date, &dynos), Some(&web(quantity))).is_ok(), proved, "{what}");
        }
    }

    #[test]
    fn what_a_list_left_out_is_known_from_the_one_before() {
        let types = Types::Named(vec!["web".into()]);
        let before = list(99, &[dyno("a", "web.1", "up", 99), dyno("w", "worker.1", "up", 99)]);
        let suspects = Suspects::of(&list(99, &[]), &types, None).with_earlier(&before);
        assert_eq!(suspects.targets(&list(99, &[])), []);
        let reasons = suspects.judge(&list(101, &before.dynos), None).unwrap_err();
        assert_eq!(reasons, ["web.1 is still the old process (up)"]);
        assert_eq!(suspects.to_restart_again(&before), [&before.dynos[0]]);
        suspects.judge(&list(103, &[dyno("b", "web.1", "up", 101)]), None).unwrap();
        assert_eq!(
            suspects.judge(&list(103, &[]), Some(&[])).unwrap_err(),
            ["the formation does not tell how many web dynos are to run"]
        );
    }

    #[test]
    fn what_began_too_early_is_restarted_again_as_well() {
        let types = Types::Named(vec!["web".into()]);
        let suspects = Suspects::of(&list(100, &[dyno("a", "web.1", "up", 10)]), &types, None);
        let early = dyno("b", "web.2", "up", 99);
        let now = list(103, &[dyno("a", "web.1", "up", 10), early, dyno("c", "web.3", "up", 100)]);
        let names: Vec<_> = suspects.to_restart_again(&now).iter().map(|dyno| dyno.name.as_str()).collect();
        assert_eq!(names, ["web.1", "web.2"]);
    }

    #[test]
    fn a_release_carries_what_booted_on_it() {
        let types = Types::Named(vec!["web".into()]);
        let mut old = dyno("a", "web.1", "up", 10);
        old.release = Some(6);
        let mixed = list(100, &[old, dyno("b", "web.2", "up", 50)]);
        let suspects = Suspects::of(&mixed, &types, Some(Known::ByRelease(7)));
        assert_eq!(suspects.dynos.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["web.1"]);
        assert_eq!(suspects.targets(&mixed), [("web", false)]);
        let proof = suspects
            .judge(&list(103, &[dyno("c", "web.1", "up", 101), dyno("b", "web.2", "up", 50)]), Some(&web(2)))
            .unwrap();
        assert_eq!(proof.at(), at(50), "web.2 is no suspect of a later look either");
    }
}
