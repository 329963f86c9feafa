//! The client against the Heroku stand-in: what the platform does of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use unstuck::adapters::heroku::{Heroku, HerokuOptions, Host};
use unstuck::dynos::{DynoList, Generation, ReleaseStatus};
use unstuck::ports::{ApiErrorKind, Platform};
use unstuck::secret::Secret;
use unstuck_standin::{Access, Act, Deploy, Fact, Options, Pool, Reply, Rule, Skew, Standin, Status};

use crate::PATIENT;

fn standin(options: Options) -> Standin {
    let standin = Standin::start(options).unwrap();
    assert!(standin.wait_until_up(PATIENT));
    standin
}

fn client_of(standin: &Standin, app: &str, timeout: Duration) -> Heroku {
    let host = Host::from_env_value(Some(standin.url())).unwrap();
    let options = HerokuOptions { host, token: Secret::new(standin.token()), app: app.to_owned(), timeout };
    Heroku::new(options, &BTreeMap::new()).unwrap()
}

fn client(standin: &Standin) -> Heroku {
    client_of(standin, standin.app(), PATIENT)
}

fn ids(list: &DynoList, kind: &str) -> Vec<String> {
    list.dynos.iter().filter(|dyno| dyno.kind == kind).map(|dyno| dyno.id.clone()).collect()
}

/// How many restarts took effect.
fn restarts(standin: &Standin) -> usize {
    let is_restart = |fact: &Fact| matches!(fact, Fact::Request { method, acted: true, .. } if method == "DELETE");
    standin.journal(0).iter().filter(|entry| is_restart(&entry.fact)).count()
}

#[test]
fn a_restart_makes_new_dynos_of_one_type() {
    let standin = standin(Options::default());
    let heroku = client(&standin);
    let app = heroku.app().unwrap();
    assert_eq!((app.id.as_str(), app.generation), (standin.app_id(), Generation::Cedar));
    let before = heroku.dynos().unwrap();
    assert_eq!((ids(&before, "web").len(), ids(&before, "worker").len()), (2, 1));

    heroku.restart_type("web").unwrap();

    let after = heroku.dynos().unwrap();
    assert_eq!(ids(&after, "worker"), ids(&before, "worker"));
    assert!(ids(&after, "web").iter().all(|id| !ids(&before, "web").contains(id)));
    assert!(after.dynos.iter().filter(|dyno| dyno.kind == "web").all(|dyno| dyno.created_at >= before.date));

    heroku.restart_dyno("worker.1").unwrap();
    assert_ne!(ids(&heroku.dynos().unwrap(), "worker"), ids(&before, "worker"));
    assert_eq!(restarts(&standin), 2);
    assert_eq!(heroku.restart_type("nosuchtype").unwrap_err().kind, ApiErrorKind::NotFound);
}

#[test]
fn an_app_is_known_by_its_uuid_too() {
    let standin = standin(Options::default());
    assert_eq!(client_of(&standin, standin.app_id(), PATIENT).app().unwrap().name, standin.app());
    let error = client_of(&standin, "another-app", PATIENT).app().unwrap_err();
    assert_eq!((error.kind, error.id.as_deref()), (ApiErrorKind::NotFound, Some("not_found")));
}

#[test]
fn dynos_on_later_pages_are_seen() {
    let standin = standin(Options { formation: BTreeMap::from([("web".to_owned(), 7)]), ..Options::default() });
    standin.run("rake about");
    standin.set_page_size(2);
    let list = client(&standin).dynos().unwrap();
    assert_eq!((ids(&list, "web").len(), ids(&list, "run").len()), (7, 1));
}

#[test]
fn the_list_is_dated_by_the_api_clock() {
    let standin = standin(Options::default());
    let heroku = client(&standin);
    let here = heroku.dynos().unwrap().date;
    standin.set_skew(Skew { date_s: -3600, stamps_s: -3600 });
    let list = heroku.dynos().unwrap();
    assert!(list.date < here);
    heroku.restart_type("web").unwrap();
    let web = heroku.dynos().unwrap().dynos.into_iter().find(|dyno| dyno.kind == "web").unwrap();
    assert!(web.created_at >= list.date && web.created_at < here);
}

#[test]
fn releases_are_told_by_status() {
    let standin = standin(Options::default());
    let heroku = client(&standin);
    let deploy = || Deploy { release_command: Some("unstuck migrate".to_owned()), ..Deploy::default() };
    let failed = standin.deploy(deploy()).unwrap();
    assert!(standin.finish_release(failed, Status::Failed));
    let pending = standin.deploy(deploy()).unwrap();

    let newest = heroku.releases(2).unwrap();
    let told: Vec<_> = newest.iter().map(|release| (release.version, release.status)).collect();
    assert_eq!(told, [(pending, ReleaseStatus::Pending), (failed, ReleaseStatus::Failed)]);
    assert_eq!(heroku.release(failed - 1).unwrap().status, ReleaseStatus::Succeeded);
    assert_eq!(heroku.release(999).unwrap_err().kind, ApiErrorKind::NotFound);
}

#[test]
fn preboot_is_told() {
    let standin = standin(Options::default());
    let heroku = client(&standin);
    assert!(!heroku.preboot().unwrap());
    standin.set_preboot(true);
    assert!(heroku.preboot().unwrap());
}

#[test]
fn the_formation_is_told() {
    let standin = standin(Options::default());
    assert!(standin.scale("worker", 0));
    let mut formation = client(&standin).formation().unwrap();
    formation.sort_by(|a, b| a.kind.cmp(&b.kind));
    let told: Vec<_> = formation.iter().map(|one| (one.kind.as_str(), one.quantity)).collect();
    assert_eq!(told, [("web", 2), ("worker", 0)]);
}

#[test]
fn what_a_token_may_do_is_told_apart() {
    let standin = standin(Options::default());
    let heroku = client(&standin);
    standin.set_access(Access::ReadOnly);
    heroku.dynos().unwrap();
    assert_eq!(heroku.restart_type("web").unwrap_err().kind, ApiErrorKind::Forbidden);
    for (access, kind) in [
        (Access::Revoked, ApiErrorKind::Unauthorized),
        (Access::Delinquent, ApiErrorKind::Forbidden),
        (Access::TwoFactor, ApiErrorKind::Forbidden),
        (Access::Suspended, ApiErrorKind::Forbidden),
    ] {
        standin.set_access(access);
        assert_eq!(heroku.dynos().unwrap_err().kind, kind, "{access:?}");
    }
}

#[test]
fn an_error_after_the_deed_leaves_one_restart() {
    for reply in [Reply::error(500, "internal_server_error"), Reply::Drop, Reply::Reset] {
        let standin = standin(Options::default());
        let delete = Some("DELETE".to_owned());
        standin.fault(Rule { method: delete, count: Some(1), act: Act::Full, reply: reply.clone(), ..Rule::default() });
        let error = client(&standin).restart_type("web").unwrap_err();
        assert_eq!(error.kind, ApiErrorKind::Unknown, "{reply:?}");
        assert_eq!(restarts(&standin), 1, "{reply:?}");
    }
}

#[test]
fn an_empty_pool_of_requests_is_waited_for() {
    let standin = standin(Options::default());
    let heroku = client(&standin);
    standin.set_pool(Pool { remaining: 0, refill_ms: 100 });
    heroku.restart_type("web").unwrap();
    assert_eq!(restarts(&standin), 1);
}

#[test]
fn the_last_words_of_a_dyno_are_read() {
    let standin = standin(Options::default());
    for number in 1..=5 {
        standin.say("app", "web.1", &format!("line {number}"));
    }
    standin.say("app", "web.2", "somebody else's");
    let lines = client(&standin).log_lines("web.1", 2).unwrap();
    let ends: Vec<_> = lines.iter().map(|line| line.rsplit_once(": ").unwrap().1).collect();
    assert_eq!(ends, ["line 4", "line 5"]);
}

#[test]
fn fir_renames_its_dynos() {
    let standin = standin(Options { generation: unstuck_standin::Generation::Fir, ..Options::default() });
    let heroku = client(&standin);
    assert_eq!(heroku.app().unwrap().generation, Generation::Fir);
    let before = heroku.dynos().unwrap();
    heroku.restart_type("web").unwrap();
    let after = heroku.dynos().unwrap();
    assert!(
        after
            .dynos
            .iter()
            .filter(|dyno| dyno.kind == "web")
            .all(|new| before.dynos.iter().all(|old| old.name != new.name))
    );
    assert_eq!(heroku.log_lines(&after.dynos[0].name, 9).unwrap(), [""; 0]);
}
