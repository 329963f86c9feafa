//! The picture as one page: no script, nothing loaded, light and dark as the reader's machine has it. Pure.

use crate::change::Change;
use crate::dynos::Release;
use crate::report::{DatabasePicture, DynoPicture, Picture, clean};
use crate::timeline::{Axis, Mark, age, came, counts, has_ended, moment_of, more, owed_since, released, sentence};

const STYLE: &str = r"
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1b2330; --soft: #5a6575; --rule: #dfe3e9; --good: #1a7f4b;
  --bad: #c62f2f; --unsure: #8a5a00; --idle: #77808d; --change: #5b3fd0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161c; --card: #1b212a; --text: #e7ebf1; --soft: #a3adbb; --rule: #303947; --good: #4cc38a; --bad: #ff7b72;
    --unsure: #e3b341; --idle: #8b95a3; --change: #a996ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem; }
h1 { margin: 0; font-size: 1.5rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 .5rem; font-size: 1rem; overflow-wrap: anywhere; }
small, .facts, .reason, footer, .scale { color: var(--soft); font-size: .875rem; }
small { font-weight: normal; }
p { margin: .25rem 0; overflow-wrap: anywhere; }
.verdict { font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); } .unsure { color: var(--unsure); }
section { margin: 1rem 0; padding: 1rem; background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; }
ul { margin: 0; padding: 0; list-style: none; }
.migrations li { overflow-wrap: anywhere; }
code { font: .875rem/1.5 ui-monospace, monospace; }
.scale { fill: var(--soft); }
.middle { fill: var(--change); font-weight: 600; }
.dynos li { display: grid; grid-template-columns: 1fr auto; gap: 0 .75rem; padding: .5rem 0; border-top: 1px solid var(--rule); }
.dynos strong, .facts { overflow-wrap: anywhere; }
.facts, svg { grid-column: 1 / -1; }
svg { display: block; margin-top: .25rem; }
.mark { font-size: .875rem; font-weight: 600; }
.stuck { --tone: var(--bad); } .fine { --tone: var(--good); } .crashed { --tone: var(--unsure); } .unknown { --tone: var(--idle); }
.mark { color: var(--tone); }
.life { fill: var(--tone); opacity: .45; }
.stuck .life { opacity: .7; }
.boot { fill: var(--tone); stroke: var(--card); stroke-width: 2; }
.end { fill: none; stroke: var(--tone); stroke-width: 2; }
.open { fill: var(--change); opacity: .12; }
.change { stroke: var(--change); stroke-width: 2; stroke-dasharray: 4 2; }
footer { margin-top: 1rem; }
@media (min-width: 45rem) {
  .dynos li { grid-template-columns: 9rem 6rem 1fr; align-items: center; }
  .dynos strong, .mark { grid-row: 1; }
  .facts { grid-column: 1 / 3; grid-row: 2; }
  svg { grid-column: 3; grid-row: 1 / 3; margin: 0; }
  .scale { width: calc(100% - 16.5rem); margin-left: 16.5rem; }
}
";

/// The hash by which the page allows its own style and no other: `sha256`, in base64, of [`STYLE`].
const STYLE_HASH: &str = "sha256-KAZNDxWKTaMRUQBUo/Ja6aSv9O0OFhcBLp91e8sfU+U=";

/// The whole document.
pub fn page(picture: &Picture) -> String {
    let app = escape(picture.app.as_deref().unwrap_or("unstuck status"));
    let verdict = match (picture.verdict, picture.owed) {
        ("owed", _) | (_, Some(true)) => "bad",
        ("clean", _) => "good",
        _ => "unsure",
    };
    let mut parts = vec![
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src '{STYLE_HASH}'; \
             base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{app}: {}</title>\n<style>{STYLE}</style>\n</head>\n\
             <body>\n<main>",
            sentence(picture)
        ),
        format!("<header>\n<h1>{app}</h1>\n<p class=\"verdict {verdict}\">{}</p>", sentence(picture)),
    ];
    let reasons =
        picture.reasons.iter().map(|reason| escape(reason)).chain(owed_since(picture).map(|text| escape(&text)));
    parts.extend(reasons.map(|reason| format!("<p class=\"reason\">{reason}</p>")));
    parts.push("</header>".to_owned());
    parts.extend(picture.dynos.as_ref().map(|dynos| dyno_section(picture, dynos)));
    parts.extend(picture.change.as_ref().map(|change| change_section(picture, change)));
    parts.extend(picture.current.as_ref().map(|release| release_section(picture, release)));
    parts.extend(picture.databases.iter().map(database_section));
    let now = picture.now.strftime("%Y-%m-%d %H:%M:%S UTC");
    parts.push(format!("<footer>Seen at <time>{now}</time> by unstuck</footer>\n</main>\n</body>\n</html>\n"));
    parts.join("\n")
}

/// Text from outside, for the inside of an element or of a quoted attribute.
fn escape(text: &str) -> String {
    clean(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

fn section(title: &str, body: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{body}\n</section>")
}

fn change_section(picture: &Picture, change: &Change) -> String {
    let versions =
        came(picture, change).into_iter().map(|(version, name)| (version, escape(&name))).collect::<Vec<_>>();
    let more = more(change).map_or(String::new(), |text| format!("<p>{text}</p>"));
    let body = format!("<p>{}</p>\n{}{more}", escape(&moment_of(picture, change)), migrations(&versions));
    section("Last schema change", &body)
}

fn release_section(picture: &Picture, release: &Release) -> String {
    section("Newest release", &format!("<p>{}</p>", escape(&released(picture, release))))
}

fn migrations(migrations: &[(String, String)]) -> String {
    if migrations.is_empty() {
        return String::new();
    }
    let item = |(version, name): &(String, String)| format!("<li><code>{version}</code> <span>{name}</span></li>");
    format!("<ul class=\"migrations\">{}</ul>", migrations.iter().map(item).collect::<String>())
}

fn database_section(database: &DatabasePicture) -> String {
    let facts = &database.facts;
    let (applied, pending, without_file) = counts(facts);
    let rows: Vec<(String, String)> =
        facts.pending.iter().map(|migration| (migration.version.to_string(), escape(&migration.name))).collect();
    let title = format!("Database {} <small>{}</small>", escape(&facts.name), escape(&facts.adapter));
    section(&title, &format!("<p>{applied}{pending}{without_file}</p>\n{}", migrations(&rows)))
}

fn dyno_section(picture: &Picture, dynos: &[DynoPicture]) -> String {
    if dynos.is_empty() {
        return section("Dynos", "<p>no dynos are running</p>");
    }
    let axis = Axis::of(picture);
    let rows: String = dynos.iter().map(|dyno| row(picture, &axis, dyno)).collect();
    let scale = scale(&axis);
    section("Dynos", &format!("{scale}\n<ul class=\"dynos\">\n{rows}</ul>"))
}

/// What the ends of the bars and the line through them are.
fn scale(axis: &Axis) -> String {
    let (left, line, right) = axis.labels();
    let text = |class: &str, anchor: &str, place: f64, label: &str| {
        let x = place * 100.0;
        format!("<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.2}%\" y=\"15\">{label}</text>")
    };
    let middle = line.zip(axis.line()).map(|(label, place)| {
        // A line far to the left has no room for half a label.
        text("middle", if place < 0.3 { "start" } else { "middle" }, place, &label)
    });
    let ends = [text("", "start", 0.0, &left), text("", "end", 1.0, right)].concat();
    format!("<svg class=\"scale\" width=\"100%\" height=\"20\">{ends}{}</svg>", middle.unwrap_or_default())
}

fn row(picture: &Picture, axis: &Axis, row: &DynoPicture) -> String {
    let dyno = &row.dyno;
    let mark = Mark::of(row);
    let class = match mark {
        Mark::Stuck => "stuck",
        Mark::Crashed => "crashed",
        Mark::Fine => "fine",
        Mark::Unknown => "unknown",
    };
    let release = dyno.release.map_or(String::new(), |version| format!(", v{version}"));
    let left_out = if mark == Mark::Stuck && !row.ours { "; not restarted: see restart.types" } else { "" };
    let booted = dyno.created_at.to_string();
    let age = age(picture.now, dyno.created_at);
    format!(
        "<li class=\"{class}\"><strong>{}</strong><span class=\"mark\">{}</span>\
         <span class=\"facts\">{}, booted <time datetime=\"{booted}\" title=\"{booted}\">{age} ago</time>{release}{left_out}</span>\
         {}</li>\n",
        escape(&dyno.name),
        mark.word(),
        escape(&dyno.state),
        bar(axis, row)
    )
}

/// One dyno's life. Everything is placed by percent, so that it fits any width and no text is stretched.
fn bar(axis: &Axis, row: &DynoPicture) -> String {
    let percent = |place: f64| format!("{:.2}%", place * 100.0);
    let boot = axis.place(row.dyno.created_at);
    let label = escape(&format!("{}: {}", row.dyno.name, Mark::of(row).word()));
    let mut shapes = String::new();
    if let Some(place) = axis.line().filter(|_| axis.is_open()) {
        let rest = percent(1.0 - place);
        shapes += &format!("<rect class=\"open\" x=\"{}\" y=\"0\" width=\"{rest}\" height=\"24\"/>", percent(place));
    }
    if Mark::of(row) != Mark::Crashed {
        let life = percent(1.0 - boot);
        shapes +=
            &format!("<rect class=\"life\" x=\"{}\" y=\"8\" width=\"{life}\" height=\"8\" rx=\"4\"/>", percent(boot));
    }
    if let Some(place) = axis.line() {
        let at = percent(place);
        shapes += &format!("<line class=\"change\" x1=\"{at}\" x2=\"{at}\" y1=\"0\" y2=\"24\"/>");
    }
    shapes += &format!("<circle class=\"boot\" cx=\"{}\" cy=\"12\" r=\"5\"/>", percent(boot));
    if has_ended(&row.dyno) {
        shapes += &format!("<circle class=\"end\" cx=\"{}\" cy=\"12\" r=\"9\"/>", percent(boot));
    }
    format!("<svg role=\"img\" aria-label=\"{label}\" width=\"100%\" height=\"24\" overflow=\"visible\">{shapes}</svg>")
}
