//! Lines of a log, near to right ones: whatever an app prints.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use unstuck::logs::colours::Palette;
use unstuck::logs::overlap::Overlap;
use unstuck::logs::troubles::{Finder, Groups};
use unstuck::logs::{parse, printable};

use crate::{bounded, cases, shown};

const PIECES: [&str; 34] = [
    "2026-11-23T04:00:00.123456+00:00",
    " ",
    " ",
    "app[web.1]:",
    "heroku[router]:",
    "heroku[web.1]:",
    "app[",
    "]:",
    "[",
    "]",
    "[01234567-89ab-cdef-0123-456789abcdef]",
    "F, [2026 #4] FATAL -- : ",
    "KeyError (",
    "):",
    "#<NoMethodError: ",
    ">",
    "::",
    "Causes:",
    "app/a.rb:1:in 'x'",
    "State changed from ",
    " to ",
    "crashed",
    "Process exited with status ",
    "at=error",
    "status=500",
    "error='",
    "{\"exception\":",
    "[\"A::Error\",",
    "}",
    "=",
    "\"",
    "\u{1b}[1m",
    "é",
    "\u{202e}",
];

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn any_log(lines in vec(vec(prop_oneof![select(&PIECES[..]).prop_map(str::to_owned), any::<char>().prop_map(String::from)], 0..12), 0..12)) {
        let mut finder = Finder::default();
        let mut palette = Palette::default();
        let mut overlap = Overlap::default();
        let mut groups = Groups::default();
        overlap.begin();
        for pieces in lines {
            // As it stands, and with the head of a right line before it.
            for raw in [pieces.concat(), format!("{} app[web.1]: {}", PIECES[0], pieces.concat())] {
                let text = bounded(4, || printable(&raw));
                shown(&text);
                assert!(!text.chars().any(char::is_control), "{text:?}");
                overlap.is_new(&raw, parse(&text).map(|line| line.at));
                bounded(4, || palette.paint(&text));
                for trouble in finder.hear(&text) {
                    groups.add(&trouble);
                    shown(&trouble.headline());
                }
            }
        }
        for trouble in finder.flush() {
            groups.add(&trouble);
        }
    }
}
