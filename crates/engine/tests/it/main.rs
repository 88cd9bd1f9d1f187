//! The use cases, where they are better looked at below HTTP.

mod devise;
mod passwords;
mod profile;
mod redirects;
mod strength;
