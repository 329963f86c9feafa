//! Exceptions in the lines of an app: Rails' own form, tagged or not, Ruby's, puma's, Sidekiq's, lograge's, and JSON.
//!
//! A logger's one message becomes several lines. Those of one process and one request belong together, whatever other requests
//! print in between.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::logs::troubles::{Class, Trouble};
use crate::logs::{Line, field};

/// Of a backtrace, as much as a person reads.
const MAX_LINES: usize = 60;
/// Of an exception's message.
const MAX_MESSAGE_CHARS: usize = 500;
/// Exceptions that are gathered at once.
const MAX_OPEN: usize = 100;
/// The lines of one message are written together. By the log's own clock.
const TOGETHER: SignedDuration = SignedDuration::from_millis(1_500);

/// What Rails answers with 4xx: the browser's fault, or a bot's.
const OF_THE_CLIENT: [&str; 14] = [
    "AbstractController::ActionNotFound",
    "ActionController::BadRequest",
    "ActionController::InvalidAuthenticityToken",
    "ActionController::InvalidCrossOriginRequest",
    "ActionController::MethodNotAllowed",
    "ActionController::NotImplemented",
    "ActionController::ParameterMissing",
    "ActionController::RoutingError",
    "ActionController::UnknownFormat",
    "ActionController::UnknownHttpMethod",
    "ActionDispatch::Http::MimeNegotiation::InvalidType",
    "ActionDispatch::Http::Parameters::ParseError",
    "ActiveRecord::RecordNotFound",
    "Rack::QueryParser::InvalidParameterError",
];

/// The exceptions whose lines are being gathered.
#[derive(Default)]
pub struct Exceptions(Vec<Open>);

struct Open {
    trouble: Trouble,
    last: Timestamp,
    /// The message goes on in the next lines.
    unfinished: bool,
    /// From here on other exceptions are named as its causes.
    causes: bool,
}

impl Exceptions {
    /// The exceptions that must be complete at this moment of the log.
    pub fn before(&mut self, at: Timestamp) -> Vec<Trouble> {
        self.close(|open| at.duration_since(open.last) > TOGETHER)
    }

    pub fn flush(&mut self) -> Vec<Trouble> {
        self.close(|_| true)
    }

    fn close(&mut self, over: impl Fn(&Open) -> bool) -> Vec<Trouble> {
        self.0.extract_if(.., |open| over(open)).filter_map(Open::told).collect()
    }

    /// The exceptions that this line of an app completes.
    pub fn hear(&mut self, line: &Line) -> Vec<Trouble> {
        let Said { request, text } = said(line.message);
        let belongs = |open: &Open| {
            open.trouble.process == line.process && (request.is_none() || open.trouble.request.as_deref() == request)
        };
        let index = self.0.iter().rposition(belongs);
        if let Some(open) = index.and_then(|index| self.0.get_mut(index)).filter(|open| open.takes(text)) {
            open.add(text, line.at);
            return Vec::new();
        }
        let mut told: Vec<Trouble> = index.map(|index| self.0.remove(index)).and_then(Open::told).into_iter().collect();
        if let Some(found) = find(text) {
            let mut trouble = Trouble::of(line, Class::Exception, found.name, short(&found.message));
            trouble.request = found.request.or(request.map(str::to_owned));
            trouble.lines = found.lines;
            let open = Open { trouble, last: line.at, unfinished: found.unfinished, causes: false };
            if found.whole { told.extend(open.told()) } else { self.0.push(open) }
        }
        if self.0.len() > MAX_OPEN {
            told.extend(self.0.remove(0).told());
        }
        told
    }
}

impl Open {
    /// Whether this line is one more of it.
    fn takes(&self, text: &str) -> bool {
        let trimmed = text.trim_start();
        (self.unfinished && self.trouble.lines.len() < 20)
            || trimmed.is_empty()
            || trimmed == "Causes:"
            || is_frame(trimmed)
            || is_source(trimmed)
            || ["LINE ", "^", "):", "DETAIL:", "HINT:", "CONTEXT:", "... "]
                .iter()
                .any(|start| trimmed.starts_with(start))
            || (self.causes && find(text).is_some())
    }

    fn add(&mut self, text: &str, at: Timestamp) {
        self.last = self.last.max(at);
        let text = text.trim_end();
        if self.unfinished && text.ends_with("):") {
            self.unfinished = false;
        }
        self.causes |= text.trim() == "Causes:";
        if !text.trim().is_empty() && self.trouble.lines.len() < MAX_LINES {
            self.trouble.lines.push(text.to_owned());
        }
    }

    /// `None` where it is none of the app's faults.
    fn told(mut self) -> Option<Trouble> {
        let trouble = &self.trouble;
        let causes = trouble.lines.iter().filter_map(|line| find(line));
        self.trouble.stuck = stuck(&trouble.name, &trouble.message)
            || causes.into_iter().any(|cause| stuck(&cause.name, &cause.message));
        (!OF_THE_CLIENT.contains(&self.trouble.name.as_str())).then_some(self.trouble)
    }
}

/// Whether such an exception is typical of a process that is older than the schema.
pub fn stuck(name: &str, message: &str) -> bool {
    let says = |words: &[&str]| words.iter().any(|words| name.contains(words) || message.contains(words));
    // Of an object of the app's own classes; `nil` and Ruby's own classes have no columns.
    let no_column = name == "NoMethodError"
        && message.starts_with("undefined method")
        && ["for #<", "for an instance of "].iter().any(|mark| {
            let class = message.split_once(mark).map_or("", |(_, class)| class);
            class.starts_with(|c: char| c.is_ascii_uppercase()) && !RUBY_OWN.iter().any(|own| is_word(class, own))
        });
    no_column
        || says(&[
            "UnknownAttributeError",
            "PG::UndefinedColumn",
            "PreparedStatementCacheExpired",
            "cached plan must not change result type",
            "Unknown column",
            "no such column",
            "has no column named",
            "can't write unknown attribute",
        ])
}

const RUBY_OWN: [&str; 12] =
    ["String", "Integer", "Float", "Array", "Hash", "Symbol", "Class", "Module", "Proc", "Object", "Set", "ActionView"];

fn is_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// A line without what a logger put before it.
struct Said<'a> {
    /// The request's id, or a job's.
    request: Option<&'a str>,
    text: &'a str,
}

fn said(message: &str) -> Said<'_> {
    let mut text = after_logger(message);
    let mut request = None;
    // Tags: `[01234567-89ab-...] [ActiveJob]`.
    while let Some((tag, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if tag.is_empty() || tag.contains(' ') || !(rest.is_empty() || rest.starts_with(' ')) {
            break;
        }
        let id = tag.len() >= 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        request = request.or(id.then_some(tag));
        text = rest.strip_prefix(' ').unwrap_or(rest);
    }
    let job = field(&message[..message.len() - text.len()], "jid");
    Said { request: request.or(job), text }
}

/// `F, [2026-11-23T04:00:00.1 #4] FATAL -- : text` of Ruby's logger, `pid=4 tid=x class=Job jid=y WARN: text` of Sidekiq's.
fn after_logger(message: &str) -> &str {
    let ruby = |rest: &str| rest.starts_with(", [");
    if message.starts_with(['D', 'I', 'W', 'E', 'F', 'A']) && message.get(1..).is_some_and(ruby) {
        let after = message.split_once(" -- ").and_then(|(_, rest)| rest.split_once(':')).map(|(_, text)| text);
        return after.map_or(message, |text| text.strip_prefix(' ').unwrap_or(text));
    }
    let sidekiq = message.contains("pid=") || message.contains(" TID-");
    let after = [" WARN: ", " ERROR: ", " FATAL: "].iter().find_map(|level| message.split_once(level));
    after.filter(|_| sidekiq).map_or(message, |(_, text)| text)
}

/// An exception, as its first line tells it.
struct Found {
    name: String,
    message: String,
    request: Option<String>,
    lines: Vec<String>,
    /// The message goes on in the next lines.
    unfinished: bool,
    /// Nothing else belongs to it.
    whole: bool,
}

impl Found {
    fn new(name: &str, message: &str) -> Self {
        Self {
            name: name.to_owned(),
            message: message.trim().to_owned(),
            request: None,
            lines: Vec::new(),
            unfinished: false,
            whole: false,
        }
    }
}

fn find(text: &str) -> Option<Found> {
    let text = text.trim();
    if text.starts_with('{') {
        return of_json(&serde_json::from_str(text).ok()?);
    }
    if let Some(error) =
        field(text, "error").filter(|_| field(text, "status").is_some_and(|status| status.starts_with('5')))
    {
        let (name, message) = error.split_once(": ").unwrap_or((error, ""));
        return is_exception(name).then(|| Found { whole: true, ..Found::new(name, message) });
    }
    if let Some(inner) = text.strip_prefix("#<").and_then(|rest| rest.strip_suffix('>')) {
        let (name, message) = inner.split_once(": ")?;
        return is_exception(name).then(|| Found::new(name, message));
    }
    let name = text.split([' ', ':']).next().unwrap_or_default();
    let name = class_path(text).unwrap_or(name);
    if is_exception(name) {
        let rest = &text[name.len()..];
        if let Some(message) = rest.strip_prefix(" (") {
            let whole = message.strip_suffix("):").or_else(|| message.strip_suffix(')'));
            return Some(Found { unfinished: whole.is_none(), ..Found::new(name, whole.unwrap_or(message)) });
        }
        return rest.strip_prefix(": ").map(|message| Found::new(name, message));
    }
    of_ruby(text)
}

/// `/app/x.rb:3:in 'foo': message (SomeError)`: how Ruby ends a process.
fn of_ruby(text: &str) -> Option<Found> {
    let (place, rest) = text
        .split_once(": ")
        .filter(|(place, _)| place.contains(".rb:") && !place.contains(' '))
        .or_else(|| text.split_once("': ").filter(|(place, _)| place.contains(".rb:")))?;
    let (message, name) = rest.strip_suffix(')')?.rsplit_once(" (")?;
    let lines = vec![place.to_owned()];
    is_exception(name).then(|| Found { lines, ..Found::new(name, message) })
}

/// The constant that a text begins with: `A::B::C`.
fn class_path(text: &str) -> Option<&str> {
    let mut end = 0;
    loop {
        let word = text[end..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len() - end);
        if word == 0 || !text[end..].starts_with(|c: char| c.is_ascii_uppercase()) {
            return None;
        }
        end += word;
        match text[end..].strip_prefix("::") {
            Some(_) => end += 2,
            None => return Some(&text[..end]),
        }
    }
}

/// How the names of exceptions end.
const ENDS: [&str; 8] = ["Error", "Exception", "Invalid", "NotFound", "Expired", "Timeout", "Interrupt", "Deadlocked"];
/// Where there are few other classes than exceptions.
const FULL_OF_THEM: [&str; 4] = ["PG::", "ActiveRecord::", "ActiveModel::", "Net::"];

/// Whether this is the name of an exception's class. `Error: ` alone is what people write.
fn is_exception(name: &str) -> bool {
    let ends = |end: &&str| name.strip_suffix(*end).is_some_and(|start| !start.is_empty());
    class_path(name) == Some(name)
        && (ENDS.iter().any(ends) || FULL_OF_THEM.iter().any(|start| name.starts_with(start)))
}

/// One line of JSON: Rails' semantic logger, lograge, or a formatter of one's own.
fn of_json(line: &Value) -> Option<Found> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let exception = [&line["exception"], &line["error"], &line["payload"]["exception"]]
        .into_iter()
        .find(|value| !value.is_null())?;
    let (name, message, lines) = match exception {
        Value::String(both) => match both.split_once(": ") {
            Some((name, message)) if is_exception(name) => (name.to_owned(), message.to_owned(), None),
            _ => (
                both.clone(),
                text(&line["exception_message"]).or_else(|| text(&line["message"])).unwrap_or_default(),
                None,
            ),
        },
        Value::Array(both) => (text(both.first()?)?, both.get(1).and_then(text).unwrap_or_default(), None),
        Value::Object(fields) => {
            let of = |names: &[&str]| names.iter().find_map(|name| fields.get(*name));
            let name = of(&["name", "class", "type"]).and_then(text)?;
            (name, of(&["message"]).and_then(text).unwrap_or_default(), of(&["stack_trace", "backtrace", "stacktrace"]))
        }
        _ => return None,
    };
    let lines =
        lines.or_else(|| ["backtrace", "stack_trace", "exception_backtrace"].iter().find_map(|name| line.get(*name)));
    let lines = match lines {
        Some(Value::Array(lines)) => lines.iter().filter_map(text).take(MAX_LINES).collect(),
        Some(Value::String(lines)) => lines.lines().take(MAX_LINES).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let request = ["request_id", "requestId", "jid"].iter().find_map(|name| line.get(*name)).and_then(text);
    is_exception(&name).then(|| Found { lines, request, whole: true, ..Found::new(&name, &message) })
}

/// A line of a backtrace.
fn is_frame(text: &str) -> bool {
    text.starts_with("from ")
        || text.starts_with("<internal:")
        || [".rb:", ".erb:", ".haml:", ".slim:", ".ru:", ".rake:"].iter().any(|file| text.contains(file))
        || (text.starts_with(['/', 'a', 'b', 'c', 'l', 'v']) && text.contains(":in "))
}

/// A line of the template that failed: `    12: <%= @post.title %>`.
fn is_source(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn short(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::{Trouble, find, stuck};
    use crate::logs::troubles::Finder;

    const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";
    const OTHER: &str = "89abcdef-89ab-cdef-0123-456789abcdef";

    /// What is found in lines that one process logs at one moment.
    fn found(lines: &str) -> Vec<Trouble> {
        let mut finder = Finder::default();
        let line = |line: &str| {
            format!("2026-11-23T04:00:00.5+00:00 app[web.1]: {}", line.replace("UUID", UUID).replace("OTHER", OTHER))
        };
        let mut found: Vec<_> = lines.lines().map(line).flat_map(|line| finder.hear(&line)).collect();
        found.extend(finder.flush());
        found
    }

    fn told(lines: &str) -> Vec<(String, usize, bool)> {
        found(lines).iter().map(|trouble| (trouble.headline(), trouble.lines.len(), trouble.stuck)).collect()
    }

    #[test]
    fn an_exception_and_its_backtrace_are_one() {
        let attribute = "ActiveModel::UnknownAttributeError: unknown attribute 'title' for Post.";
        let no_title = "NoMethodError: undefined method 'title' for an instance of Post";
        for (lines, expected) in [
            // Rails with tags on each line, as of 7.1, another request between.
            (
                "F, [2026-11-23T04:00:00.1 #4] FATAL -- : [UUID]   \n\
                 [UUID] ActiveModel::UnknownAttributeError (unknown attribute 'title' for Post.):\n\
                 [UUID]   \n\
                 I, [2026-11-23T04:00:00.1 #4]  INFO -- : [OTHER] Started GET \"/\" for 1.2.3.4\n\
                 [UUID] app/controllers/posts_controller.rb:10:in 'PostsController#create'\n\
                 I, [2026-11-23T04:00:00.1 #4]  INFO -- : [UUID] Completed 200 OK in 8ms\n\
                 [UUID] app/late.rb:1:in 'x'",
                vec![(attribute, 1, true)],
            ),
            // Without tags, as of 5.
            (
                "F, [2026-11-23T04:00:00.1 #4] FATAL -- :   \n\
                 F, [2026-11-23T04:00:00.1 #4] FATAL -- : ActionView::Template::Error (undefined method 'title' for an instance of Post):\n\
                 \x20   1: <h1><%= @post.title %></h1>\n\
                 \x20 \n\
                 Causes:\n\
                 NoMethodError (undefined method 'title' for an instance of Post)\n\
                 app/views/posts/show.html.erb:1:in '_app_views'",
                vec![("ActionView::Template::Error: undefined method 'title' for an instance of Post", 4, true)],
            ),
            // A message of several lines.
            (
                "[UUID] ActiveRecord::StatementInvalid (PG::UndefinedColumn: ERROR:  column posts.title does not exist\n\
                 LINE 1: SELECT posts.title FROM posts\n\
                 \x20              ^\n\
                 ):\n\
                 [UUID] app/models/post.rb:3:in 'Post.latest'",
                vec![(
                    "ActiveRecord::StatementInvalid: PG::UndefinedColumn: ERROR:  column posts.title does not exist",
                    4,
                    true,
                )],
            ),
            // Two at once, told apart by their requests.
            (
                "[UUID] ZeroDivisionError (divided by 0):\n\
                 [OTHER] KeyError (key not found: :a):\n\
                 [UUID] app/a.rb:1:in 'a'\n\
                 [OTHER] app/b.rb:1:in 'b'\n\
                 [OTHER] app/c.rb:1:in 'c'",
                vec![("ZeroDivisionError: divided by 0", 1, false), ("KeyError: key not found: :a", 2, false)],
            ),
            // Two of one request, one after the other.
            (
                "ZeroDivisionError (divided by 0):\napp/a.rb:1:in 'a'\nKeyError (key not found: :a):\napp/b.rb:1:in 'b'",
                vec![("ZeroDivisionError: divided by 0", 1, false), ("KeyError: key not found: :a", 1, false)],
            ),
            // What a browser asked for is no fault of the app.
            (
                "[UUID] ActionController::RoutingError (No route matches [GET] \"/wp-login.php\"):\n[UUID] app/a.rb:1:in 'a'",
                vec![],
            ),
            // Ruby itself, puma, Sidekiq.
            (
                "/app/config/boot.rb:3:in 'Kernel#require': cannot load such file -- x (LoadError)\n\tfrom /app/a.rb:1:in '<main>'",
                vec![("LoadError: cannot load such file -- x", 2, false)],
            ),
            (
                "2026-11-23 04:00:00 +0000 Rack app (\"GET /posts\" - (1.2.3.4)): #<NoMethodError: x>\n\
                 #<NoMethodError: undefined method 'title' for an instance of Post>\n\
                 /app/app/models/post.rb:3:in 'x'",
                vec![(no_title, 1, true)],
            ),
            (
                "pid=4 tid=abc class=PostJob jid=1f2e3d WARN: ActiveModel::UnknownAttributeError: unknown attribute 'title' for Post.\n\
                 pid=4 tid=abc class=PostJob jid=1f2e3d WARN: /app/app/jobs/post_job.rb:5:in 'perform'",
                vec![(attribute, 1, true)],
            ),
            // One line each: lograge, JSON in three forms.
            (
                "method=GET path=/ status=500 error='NoMethodError: undefined method 'title' for an instance of Post' duration=1",
                vec![("NoMethodError: undefined method", 0, false)],
            ),
            (
                r#"{"level":"FATAL","request_id":"a","exception":{"name":"ActiveModel::UnknownAttributeError","message":"unknown attribute 'title' for Post.","stack_trace":["a","b"]}}"#,
                vec![(attribute, 2, true)],
            ),
            (
                r#"{"status":500,"exception":["ActiveModel::UnknownAttributeError","unknown attribute 'title' for Post."]}"#,
                vec![(attribute, 0, true)],
            ),
            (
                r#"{"exception":"ActiveModel::UnknownAttributeError","message":"unknown attribute 'title' for Post.","backtrace":["a"]}"#,
                vec![(attribute, 1, true)],
            ),
            // No exceptions.
            (
                "Started GET \"/\" for 1.2.3.4\nProcessing by PostsController#index as HTML\n  User Load (0.5ms)  SELECT 1\n\
                 TRANSACTION (0.2ms)  BEGIN\nCompleted 200 OK in 8ms\nPuma starting in single mode...\n{\"status\":200}\n{broken\n\
                 app/models/post.rb:3:in 'x'\nError: none\nmethod=GET path=/ status=404 error=x",
                vec![],
            ),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(headline, lines, stuck)| (headline.to_owned(), lines, stuck)).collect();
            assert_eq!(told(lines), expected, "{lines}");
        }
    }

    #[test]
    fn the_request_is_known_by_its_tag() {
        assert_eq!(found("[UUID] [web] KeyError (key not found):")[0].request.as_deref(), Some(UUID));
        assert_eq!(found("[4] KeyError (key not found):")[0].request, None);
    }

    #[test]
    fn signs_of_a_stuck_dyno_are_known() {
        for (name, message, expected) in [
            ("ActiveModel::UnknownAttributeError", "unknown attribute 'title' for Post.", true),
            ("PG::UndefinedColumn", "ERROR:  column \"title\" does not exist", true),
            ("ActiveRecord::StatementInvalid", "PG::UndefinedColumn: ERROR:  column posts.title does not exist", true),
            (
                "ActiveRecord::StatementInvalid",
                "PG::FeatureNotSupported: ERROR:  cached plan must not change result type",
                true,
            ),
            ("ActiveRecord::PreparedStatementCacheExpired", "ERROR:  cached plan must not change result type", true),
            ("ActiveRecord::StatementInvalid", "Mysql2::Error: Unknown column 'posts.title' in 'field list'", true),
            (
                "ActiveRecord::StatementInvalid",
                "Trilogy::ProtocolError: 1054: Unknown column 'title' in 'where clause'",
                true,
            ),
            ("ActiveRecord::StatementInvalid", "SQLite3::SQLException: no such column: posts.title", true),
            ("NoMethodError", "undefined method `title' for #<Post id: 1>", true),
            ("NoMethodError", "undefined method 'title=' for #<Post:0x0001>", true),
            ("NoMethodError", "undefined method 'title' for an instance of Post", true),
            ("NoMethodError", "undefined method 'title' for nil", false),
            ("NoMethodError", "undefined method `title' for nil:NilClass", false),
            ("NoMethodError", "undefined method 'title' for an instance of String", false),
            ("NoMethodError", "undefined method 'title' for an instance of StringPost", true),
            ("NoMethodError", "undefined method 'title' for #<#<Class:0x1>:0x2>", false),
            ("NoMethodError", "undefined local variable or method 'x' for #<Post", false),
            ("PG::ConnectionBad", "could not connect to server", false),
            ("ActiveRecord::StatementInvalid", "PG::QueryCanceled: ERROR:  canceling statement", false),
        ] {
            assert_eq!(stuck(name, message), expected, "{name}: {message}");
        }
    }

    #[test]
    fn only_the_names_of_exceptions_count() {
        for (text, name) in [
            ("KeyError (key not found):", Some("KeyError")),
            ("Net::ReadTimeout: too late", Some("Net::ReadTimeout")),
            ("PG::UndefinedColumn: ERROR", Some("PG::UndefinedColumn")),
            ("rake: x", None),
            ("Redis (1.2ms)", None),
            ("CACHE Post Load (0.0ms)", None),
            ("Post::Draft: saved", None),
            ("::Error: x", None),
            ("", None),
        ] {
            assert_eq!(find(text).map(|found| found.name).as_deref(), name, "{text}");
        }
    }
}
