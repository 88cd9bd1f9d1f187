//! What is logged, and how.

use tracing::Level;

use super::reader::Reader;

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// In which form.
    pub format: Format,
    /// From which level on, as far as baton itself is concerned.
    pub level: Level,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For reading.
    Human,
    /// One JSON object a line.
    Json,
}

pub(super) fn read(reader: &mut Reader<'_>) -> LogConfig {
    LogConfig {
        format: reader.choice("log.format", [("human", Format::Human), ("json", Format::Json)]),
        level: reader.choice(
            "log.level",
            [
                ("error", Level::ERROR),
                ("warn", Level::WARN),
                ("info", Level::INFO),
                ("debug", Level::DEBUG),
                ("trace", Level::TRACE),
            ],
        ),
    }
}
