//! The table of `docs/compatibility.md` that lists how recorded exchanges differ.

use std::collections::BTreeSet;

use super::recording::Exchange;

const FILE: &str = include_str!("../../../../../docs/compatibility.md");

/// The heading above the table, and its columns.
const HEADING: &str = "## Recorded exchanges that differ";
const COLUMNS: [&str; 4] = ["id", "scenario", "exchanges", "what differs"];

/// A row: these exchanges differ in these ways.
#[derive(Debug)]
pub struct Row {
    pub id: String,
    pub scenarios: Vec<String>,
    pub exchanges: Vec<Which>,
    pub differences: Vec<String>,
}

/// Some exchanges of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    All,
    Index(usize),
    /// Those whose note is like this; `*` stands for anything.
    Note(String),
}

impl Which {
    pub fn matches(&self, exchange: &Exchange) -> bool {
        match self {
            Self::All => true,
            Self::Index(index) => *index == exchange.index,
            Self::Note(pattern) => is_like(&exchange.note, pattern),
        }
    }
}

impl Row {
    /// Whether it is about this scenario by its full name.
    pub fn names(&self, scenario: &str) -> bool {
        self.scenarios.iter().any(|name| name == scenario)
    }

    pub fn covers(&self, exchange: &Exchange, difference: &str) -> bool {
        self.differences.iter().any(|pattern| is_like(difference, pattern))
            && self.scenarios.iter().any(|pattern| is_like(&exchange.scenario, pattern))
            && self.exchanges.iter().any(|which| which.matches(exchange))
    }
}

/// How recorded exchanges differ.
pub fn rows() -> Vec<Row> {
    let rows = table().into_iter().map(|cells| Row {
        id: code(&cells[0]).unwrap_or_else(|| panic!("an id in backquotes, not {:?}", cells[0])),
        scenarios: list(&cells[1], ','),
        exchanges: which(&cells[2]),
        differences: list(&cells[3], ';'),
    });
    rows.collect()
}

/// The ids that the tables above it explain. Each row that has one has to say something in each cell.
pub fn explained() -> BTreeSet<String> {
    let above = FILE.split(HEADING).next().expect("there is always a first");
    let mut ids = BTreeSet::new();
    for cells in above.lines().filter_map(cells) {
        if let Some(id) = code(&cells[0]) {
            assert!(cells.iter().all(|cell| !cell.is_empty()), "a row with an id and an empty cell: {cells:?}");
            assert!(ids.insert(id), "an id twice: {cells:?}");
        }
    }
    ids
}

/// The cells below the heading.
fn table() -> Vec<Vec<String>> {
    let (_, below) = FILE.split_once(&format!("\n{HEADING}\n")).expect("the heading");
    let mut rows = below.lines().filter_map(cells);
    assert_eq!(rows.next().expect("a table"), COLUMNS);
    rows.next().expect("the line below the head");
    let rows: Vec<_> = rows.collect();
    assert!(rows.iter().all(|row| row.len() == COLUMNS.len()), "{rows:?}");
    rows
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// What stands in backquotes.
fn code(cell: &str) -> Option<String> {
    Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned())
}

fn list(cell: &str, separator: char) -> Vec<String> {
    let list: Vec<String> = cell.split(separator).map(|item| item.trim().to_owned()).collect();
    assert!(list.iter().all(|item| !item.is_empty()), "an empty item: {cell:?}");
    list
}

/// `*`, or numbers, ranges (`3-5`) and notes in quotation marks, with commas between.
fn which(cell: &str) -> Vec<Which> {
    let mut found = Vec::new();
    // Every second part is within quotation marks.
    for (at, part) in cell.split('"').enumerate() {
        if at % 2 == 1 {
            found.push(Which::Note(part.to_owned()));
            continue;
        }
        for item in part.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let number =
                |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("no number: {item:?} in {cell:?}"));
            match item.split_once('-') {
                _ if item == "*" => found.push(Which::All),
                Some((first, last)) => found.extend((number(first)..=number(last)).map(Which::Index)),
                None => found.push(Which::Index(number(item))),
            }
        }
    }
    assert!(!found.is_empty(), "no exchanges: {cell:?}");
    found
}

/// Whether a text is like a pattern in which `*` stands for anything.
pub fn is_like(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(text) = text.strip_prefix(first) else { return false };
    text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| is_like(&text[at..], rest))
}
