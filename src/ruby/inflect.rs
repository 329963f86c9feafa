//! Rails' default inflections, as far as names of tables need them. An application's own inflections are not known here, so a
//! name is compared by what it may be, never taken for certain.

/// Words whose plural is another word; also as the end of a longer one, as in `SalesPerson`.
const IRREGULAR: [(&str, &str); 6] = [
    ("person", "people"),
    ("man", "men"),
    ("child", "children"),
    ("sex", "sexes"),
    ("move", "moves"),
    ("zombie", "zombies"),
];

const UNCOUNTABLE: [&str; 10] =
    ["equipment", "information", "rice", "money", "species", "series", "fish", "sheep", "jeans", "police"];

/// Endings and what becomes of them; the first that fits.
const PLURALS: [(&str, &str); 30] = [
    ("quiz", "quizzes"),
    ("mouse", "mice"),
    ("mice", "mice"),
    ("ia", "ia"),
    ("matrix", "matrices"),
    ("vertex", "vertices"),
    ("index", "indices"),
    ("vertix", "vertices"),
    ("indix", "indices"),
    ("ox", "oxes"),
    ("ses", "ses"),
    ("ch", "ches"),
    ("sh", "shes"),
    ("ss", "sses"),
    ("x", "xes"),
    ("ffe", "ffes"),
    ("lf", "lves"),
    ("rf", "rves"),
    ("sis", "ses"),
    ("datum", "data"),
    ("ta", "ta"),
    ("tum", "ta"),
    ("ium", "ia"),
    ("buffalo", "buffaloes"),
    ("tomato", "tomatoes"),
    ("bus", "buses"),
    ("alias", "aliases"),
    ("status", "statuses"),
    ("virus", "viri"),
    ("octopus", "octopi"),
];

/// The plural of a word in snake case, by its last part.
pub fn plural(word: &str) -> String {
    let ending = |end: &str, with: &str| word.strip_suffix(end).map(|stem| format!("{stem}{with}"));
    let last = word.rsplit('_').next().unwrap_or(word);
    if UNCOUNTABLE.contains(&last) {
        return word.to_owned();
    }
    if let Some(plural) = IRREGULAR.iter().find_map(|(one, many)| ending(one, many)) {
        return plural;
    }
    if IRREGULAR.iter().any(|(_, many)| last == *many) {
        return word.to_owned();
    }
    if let Some(plural) = PLURALS.iter().find_map(|(end, with)| ending(end, with)) {
        return plural;
    }
    if let Some(stem) = word.strip_suffix("axis").or_else(|| word.strip_suffix("testis")) {
        return format!("{stem}{}es", &word[stem.len()..word.len() - 2]);
    }
    if let Some(stem) = word.strip_suffix("fe") {
        return format!("{stem}ves");
    }
    if let Some(stem) = word.strip_suffix('y')
        && (stem.ends_with("qu") || !stem.ends_with(['a', 'e', 'i', 'o', 'u']))
    {
        return format!("{stem}ies");
    }
    if word.ends_with('s') { word.to_owned() } else { format!("{word}s") }
}

/// The word of which this is the plural; the word itself where none is known.
pub fn singular(word: &str) -> String {
    let endings = [("ies", "y"), ("es", ""), ("s", "")];
    let regular = endings.iter().filter_map(|(end, with)| word.strip_suffix(end).map(|stem| format!("{stem}{with}")));
    let irregular =
        IRREGULAR.iter().filter_map(|(one, many)| word.strip_suffix(many).map(|stem| format!("{stem}{one}")));
    irregular.chain(regular).find(|one| plural(one) == word).unwrap_or_else(|| word.to_owned())
}

/// `HTMLPage` is `html_page`.
pub fn underscore(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut text = String::with_capacity(name.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| letters[index]);
        let after = letters.get(index + 1);
        let lower_before = before.is_some_and(|before| before.is_lowercase() || before.is_ascii_digit());
        let ends_capitals = before.is_some_and(char::is_uppercase) && after.is_some_and(|after| after.is_lowercase());
        if letter.is_uppercase() && (lower_before || ends_capitals) {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// The table behind a class without a word about it: `BlogPost` is `blog_posts`.
pub fn table_of(class: &str) -> String {
    plural(&underscore(class))
}

/// The table between two others: names in order, a common beginning said once.
pub fn join_table(a: &str, b: &str) -> String {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    let shared = first.rfind('_').map_or("", |end| &first[..=end]);
    match second.strip_prefix(shared) {
        Some(rest) if !shared.is_empty() => format!("{first}_{rest}"),
        _ => format!("{first}_{second}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{join_table, singular, table_of};

    #[test]
    fn tables_have_singulars() {
        for (many, one) in [
            ("posts", "post"),
            ("notes", "note"),
            ("addresses", "address"),
            ("houses", "house"),
            ("boxes", "box"),
            ("sales_people", "sales_person"),
            ("categories", "category"),
            ("equipment", "equipment"),
        ] {
            assert_eq!(singular(many), one);
        }
    }

    #[test]
    fn classes_have_tables() {
        for (class, table) in [
            ("Post", "posts"),
            ("BlogPost", "blog_posts"),
            ("HTMLPage", "html_pages"),
            ("Person", "people"),
            ("SalesPerson", "sales_people"),
            ("Category", "categories"),
            ("Day", "days"),
            ("Status", "statuses"),
            ("Address", "addresses"),
            ("Analysis", "analyses"),
            ("Box", "boxes"),
            ("Batch", "batches"),
            ("Bus", "buses"),
            ("Child", "children"),
            ("News", "news"),
            ("Equipment", "equipment"),
            ("Medium", "media"),
            ("Datum", "data"),
            ("Metadata", "metadata"),
            ("Index", "indices"),
            ("Vertex", "vertices"),
            ("Half", "halves"),
            ("Knife", "knives"),
            ("Query", "queries"),
            ("Soliloquy", "soliloquies"),
            ("OAuth2Token", "o_auth2_tokens"),
            ("Move", "moves"),
            ("Series", "series"),
            ("Alias", "aliases"),
            ("Quiz", "quizzes"),
        ] {
            assert_eq!(table_of(class), table, "{class}");
        }
    }

    #[test]
    fn join_tables_have_names() {
        assert_eq!(join_table("tags", "posts"), "posts_tags");
        assert_eq!(join_table("music_artists", "music_records"), "music_artists_records");
    }
}
