//! Where a request comes from.

use baton_core::session::Device;

/// Who asks, as far as the network tells: for events, the list of devices and the language of letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visitor {
    /// Address and user agent.
    pub device: Device,
    /// The languages that the person reads, as in `Accept-Language` (RFC 9110 §12.5.4); empty if not known.
    pub languages: String,
}
