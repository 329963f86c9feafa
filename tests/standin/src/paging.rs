//! The platform's paging: `Range: version ..; max=10, order=desc`, answered with 206 and `Next-Range` where the list is cut.

use std::cmp::Ordering;

use serde_json::Value;

/// One page of a list.
#[derive(Debug, PartialEq)]
pub struct Page {
    pub items: Vec<Value>,
    pub content_range: String,
    /// Where the next page starts; `None` on the last one.
    pub next_range: Option<String>,
}

#[derive(Debug, PartialEq)]
struct Range<'a> {
    property: &'a str,
    start: &'a str,
    /// Whether `start` itself is left out.
    after: bool,
    end: &'a str,
    max: usize,
    descending: bool,
}

/// The part of `items` that `header` asks for. `None` when it cannot be read (416).
pub fn page(mut items: Vec<Value>, header: Option<&str>, property: &str, page_size: usize) -> Option<Page> {
    let range = match header {
        Some(header) => parse(header, page_size)?,
        None => Range { property, start: "", after: false, end: "", max: page_size, descending: false },
    };
    if items.iter().any(|item| item.get(range.property).is_none()) {
        return None;
    }
    let order = |a: &Value, b: &Value| if range.descending { compare(b, a) } else { compare(a, b) };
    items.sort_by(|a, b| order(&a[range.property], &b[range.property]));
    let bound = |text: &str| text.parse().map_or_else(|_| Value::from(text), |number: u64| Value::from(number));
    items.retain(|item| {
        let key = &item[range.property];
        let from_start = range.start.is_empty() || {
            let at = order(key, &bound(range.start));
            at == Ordering::Greater || (at == Ordering::Equal && !range.after)
        };
        from_start && (range.end.is_empty() || order(key, &bound(range.end)) != Ordering::Greater)
    });
    let cut = items.len() > range.max;
    items.truncate(range.max);
    let key = |item: Option<&Value>| item.map(|item| text(&item[range.property])).unwrap_or_default();
    let (first, last) = (key(items.first()), key(items.last()));
    let order = if range.descending { ", order=desc" } else { "" };
    let name = range.property;
    let next_range = cut.then(|| format!("{name} ]{last}..{}; max={}{order}", range.end, range.max));
    Some(Page { content_range: format!("{name} {first}..{last}"), next_range, items })
}

fn parse(header: &str, page_size: usize) -> Option<Range<'_>> {
    let (span, parameters) = header.split_once(';').unwrap_or((header, ""));
    let (property, span) = span.trim().split_once(' ').unwrap_or((span.trim(), ".."));
    let (start, end) = span.trim().split_once("..")?;
    let (start, after) = start.strip_prefix(']').map_or((start, false), |start| (start, true));
    let mut range = Range { property, start, after, end, max: page_size, descending: false };
    for parameter in parameters.split([',', ';']).map(str::trim).filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=')? {
            ("max", max) => {
                range.max = max.parse::<usize>().ok().filter(|max| (1..=1000).contains(max))?.min(page_size);
            }
            ("order", order) => range.descending = order == "desc",
            _ => return None,
        }
    }
    Some(range)
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_u64(), b.as_u64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => text(a).cmp(&text(b)),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::page;

    fn versions(header: Option<&str>, page_size: usize) -> Option<(Vec<u64>, Option<String>)> {
        let items = (1..=12).map(|version| json!({"version": version, "id": format!("id-{version:02}")})).collect();
        let page = page(items, header, "version", page_size)?;
        Some((page.items.iter().map(|item| item["version"].as_u64().unwrap()).collect(), page.next_range))
    }

    #[test]
    fn a_range_chooses_a_page() {
        type Case<'a> = (Option<&'a str>, usize, Vec<u64>, Option<&'a str>);
        let all: Vec<u64> = (1..=12).collect();
        let table: [Case; 7] = [
            (None, 200, all.clone(), None),
            (None, 5, vec![1, 2, 3, 4, 5], Some("version ]5..; max=5")),
            (Some("version ]5..; max=5"), 200, vec![6, 7, 8, 9, 10], Some("version ]10..; max=5")),
            (Some("version ]10..; max=5"), 200, vec![11, 12], None),
            (Some("version ..; max=2, order=desc"), 200, vec![12, 11], Some("version ]11..; max=2, order=desc")),
            (Some("version ]11..; order=desc,max=2;"), 200, vec![10, 9], Some("version ]9..; max=2, order=desc")),
            (Some("id id-11..; max=200;"), 200, vec![11, 12], None),
        ];
        for (header, page_size, items, next) in table {
            assert_eq!(versions(header, page_size), Some((items, next.map(str::to_owned))), "{header:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for header in ["colour ..", "version 1", "version ..; max=0", "version ..; max=1001", "version ..; size=1"] {
            assert_eq!(versions(Some(header), 200), None, "{header}");
        }
    }
}
