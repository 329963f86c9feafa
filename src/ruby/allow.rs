//! Exceptions in the code: `# unstuck:allow RULE REASON`, on the line itself, above it, or above the class for the whole file.

const MARK: &str = "unstuck:allow";

/// One exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    pub rule: String,
    /// Empty where none is given; then it allows nothing.
    pub reason: String,
    /// The comment's own line, from 1.
    pub line: usize,
    /// The line that it is about; none for the whole file.
    pub about: Option<usize>,
}

impl Allowance {
    /// Whether a finding of this rule on this line is allowed. Line 0 is the file as a whole.
    pub fn covers(&self, rule: &str, line: usize) -> bool {
        self.rule == rule && !self.reason.is_empty() && self.about.is_none_or(|about| about == line || line == 0)
    }
}

/// All exceptions of a file.
pub fn allowances(text: &[u8]) -> Vec<Allowance> {
    if !text.windows(MARK.len()).any(|window| window == MARK.as_bytes()) {
        return Vec::new();
    }
    let parsed = ruby_prism::parse(text);
    let content = String::from_utf8_lossy(text);
    let lines: Vec<&str> = content.lines().map(str::trim).collect();
    let first = lines.iter().copied().position(is_code).map_or(usize::MAX, |index| index + 1);
    parsed
        .comments()
        .filter_map(|comment| {
            let comment_text = String::from_utf8_lossy(comment.text()).into_owned();
            let (_, rest) = comment_text.split_once(MARK)?;
            let (rule, reason) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
            let line = usize::try_from(comment.location().start_line()).unwrap_or(1);
            let alone = lines.get(line - 1).is_some_and(|text| text.starts_with('#'));
            let next = lines.iter().copied().skip(line).position(is_code).map(|offset| line + offset + 1);
            let about = match (alone, next) {
                _ if line < first => None,
                (true, Some(next)) => Some(next),
                _ => Some(line),
            };
            Some(Allowance { rule: rule.to_owned(), reason: reason.trim().to_owned(), line, about })
        })
        .collect()
}

fn is_code(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::allowances;

    #[test]
    fn comments_allow_a_line_or_the_file() {
        let text = "# unstuck:allow a whole file\nclass A\n  # unstuck:allow b next line\n\n  # more\n  b\n  c # unstuck:allow c here\n  # unstuck:allow d\n  d\nend\n";
        let found: Vec<(String, String, Option<usize>)> =
            allowances(text.as_bytes()).into_iter().map(|one| (one.rule, one.reason, one.about)).collect();
        let expected =
            [("a", "whole file", None), ("b", "next line", Some(6)), ("c", "here", Some(7)), ("d", "", Some(9))];
        let expected: Vec<_> =
            expected.map(|(rule, reason, about)| (rule.to_owned(), reason.to_owned(), about)).to_vec();
        assert_eq!(found, expected);
        assert!(allowances(b"\"# unstuck:allow a in a text\"").is_empty());
    }
}
