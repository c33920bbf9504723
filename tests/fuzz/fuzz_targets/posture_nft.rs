//! Rulesets in nft's language.
#![no_main]

defender_fuzz::scan_target!("nft");
