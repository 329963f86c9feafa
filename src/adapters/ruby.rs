//! The application's own Ruby, asked to evaluate one template. Rails is never loaded.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// More than enough for Ruby to start and to read one file.
const TIMEOUT: Duration = Duration::from_secs(20);
/// No configuration is longer.
const MAX_BYTES: u64 = 4 << 20;

/// Evaluates the template as ERB does, with the few words of Rails that such files use and that mean the same without it.
const SCRIPT: &str = r#"
require "erb"
require "json"
require "pathname"
require "yaml"
module Rails
  Environment = Class.new(String) do
    def method_missing(name, *) = name.end_with?("?") ? self == name[0..-2] : super
    def respond_to_missing?(name, *) = name.end_with?("?")
  end
  def self.env = Environment.new(ARGV[1])
  def self.root = Pathname.pwd
end
class Object
  def blank? = respond_to?(:empty?) ? !!empty? : !self
  def present? = !blank?
  def presence = blank? ? nil : self
end
class String
  def blank? = strip.empty?
end
answer = $stdout.dup
$stdout.reopen($stderr)
template = ERB.new(File.read(ARGV[0], encoding: "UTF-8"))
template.filename = ARGV[0]
answer.write(template.result)
"#;

/// The text of the template at `file` (relative to `root`), evaluated in the Rails root with this environment. What the
/// template itself prints is thrown away, and so is Ruby's account of an error, which may quote a secret.
pub fn render(root: &Path, file: &str, environment: &str, env: &BTreeMap<String, String>) -> Result<String> {
    let failed = |what: &str| Error::new(Kind::Input, format!("ruby: {what}"));
    let mut ruby = Command::new("ruby");
    ruby.args(["-e", SCRIPT, "--", file, environment]).current_dir(root).env_clear().envs(env);
    ruby.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = ruby.spawn().map_err(|cause| failed("cannot be started").because(cause))?;
    let Some(output) = child.stdout.take() else { return Err(failed("has no output")) };
    let (sender, receiver) = mpsc::channel();
    // Where no thread is to be had, the sender goes with what it would have run, and there is no answer to wait for.
    let _ = thread::Builder::new().spawn(move || {
        let mut bytes = Vec::new();
        let read = output.take(MAX_BYTES).read_to_end(&mut bytes).map(|_| bytes);
        // The receiver is gone only when the time is over, and then nobody asks.
        let _ = sender.send(read);
    });
    let answer = receiver.recv_timeout(TIMEOUT);
    if answer.is_err() {
        // SAFETY: kill takes two integers; the group is the child's own, and the child has not been waited for.
        unsafe { libc::kill(-libc::pid_t::try_from(child.id()).unwrap_or(libc::pid_t::MAX), libc::SIGKILL) };
    }
    let status = child.wait().map_err(|cause| failed("cannot be waited for").because(cause))?;
    let bytes = answer
        .map_err(|_| failed("did not answer in time"))?
        .map_err(|cause| failed("gave no answer").because(cause))?;
    if !status.success() {
        return Err(failed("could not evaluate the file outside of Rails"));
    }
    String::from_utf8(bytes).map_err(|_| failed("answered with something that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run(template: &str) -> Result<String> {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("x.yml"), template).unwrap();
        let env = [("PATH", std::env::var("PATH").unwrap()), ("A", "a".to_owned())];
        render(root.path(), "x.yml", "test", &env.map(|(name, value)| (name.to_owned(), value)).into())
    }

    #[test]
    fn ruby_evaluates_what_is_beyond_us() {
        let template =
            "<% puts 1; [1, 2].each do |n| %><%= n * 2 %>,<% end %><%= ENV['A'].presence %> <%= Rails.env.test? %>";
        assert_eq!(run(template).unwrap(), "2,4,a true");
    }

    #[test]
    fn failures_quote_nothing() {
        let error = run("<%= raise 'secret' %>").unwrap_err();
        assert_eq!(error.to_string(), "ruby: could not evaluate the file outside of Rails");
    }
}
