//! latency
/// x
pub fn run(_: &super::Bench) -> crate::error::Result<()> {
    Ok(())
}
