//! The use cases, where they are better looked at below HTTP.

mod passwords;
