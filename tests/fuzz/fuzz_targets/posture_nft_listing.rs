//! Rulesets as `nft -j list ruleset` prints them.
#![no_main]

defender_fuzz::scan_target!("nft_listing");
