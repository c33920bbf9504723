//! Texts of our own in events, by which classes that hold several kinds of event are told apart when they are read back.

/// `unmapped.kind` of a socket that listens, or no longer does: the class has no other mark of one that closed.
pub(super) const LISTENER: &str = "listener";
/// `entity.type` of the packet filter.
pub(super) const FIREWALL: &str = "firewall";
/// `unmapped.kind` of what became of a service; the class is also that of what the agent says of itself.
pub(super) const SERVICE: &str = "service";
/// `unmapped.kind` of an event that a service submitted.
pub(super) const SUBMITTED: &str = "submitted";
