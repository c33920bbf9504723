//! Lists of packages that builds write.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    defender_posture::sbom::manifest::read(bytes, &mut |component| {
        let _ = defender_posture::sbom::cyclonedx::purl(&component);
    });
});
