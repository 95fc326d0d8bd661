//! Words of messages: which of several names is most like a mistyped one, and plurals.

/// Less alike than this is no suggestion.
const LIKE: f64 = 0.8;

/// The name that is most like `word`, the first of equals; none if none is like it. A name is found by parts of it, too: `batch_size` in
/// `train_batch_size`, `seed` in `runtime.seed`; and by its initials.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let mut best = None;
    for name in names {
        let found = likeness(&word, name);
        if found >= LIKE && best.is_none_or(|(most, _)| found > most) {
            best = Some((found, name));
        }
    }
    best.map(|(_, name)| name)
}

fn likeness(word: &str, name: &str) -> f64 {
    /// So much of it counts that only a part is like the word.
    const PART: f64 = 0.97;
    const INITIALS: f64 = 0.9;
    /// The last part says what it is: `num_epochs` are `train_epochs`.
    const LAST: f64 = 0.88;
    let mut found = strsim::jaro_winkler(word, name);
    let parts: Vec<&str> = name.split(['.', '_']).collect();
    let initials = parts.iter().filter_map(|part| part.chars().next());
    if parts.len() > 1 && initials.eq(word.chars()) {
        found = found.max(INITIALS);
    }
    let last = |name: &str| name.rsplit(['.', '_']).next().map(str::to_owned);
    if word.contains('_') && last(word) == last(name) {
        found = found.max(LAST);
    }
    // Of each run of neighbouring parts.
    let begins = || std::iter::once(0).chain(name.match_indices(['.', '_']).map(|(at, _)| at + 1));
    let ends = || {
        name.match_indices(['.', '_'])
            .map(|(at, _)| at)
            .chain([name.len()])
    };
    for begin in begins() {
        for end in ends().filter(|end| *end > begin) {
            found = found.max(PART * strsim::jaro_winkler(word, &name[begin..end]));
        }
    }
    found
}

/// So many of something.
pub fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", plural(number))
}

/// The ending of a noun behind a number.
pub fn plural(count: impl TryInto<u64>) -> &'static str {
    match count.try_into() {
        Ok(1) => "",
        _ => "s",
    }
}
