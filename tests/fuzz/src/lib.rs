//! What several fuzz targets share.

#[path = "../../../agent/posture/tests/formats/image.rs"]
pub mod image;

/// A target that scans an image in which the format of that name holds what the fuzzer makes up.
#[macro_export]
macro_rules! scan_target {
    ($format:literal) => {
        thread_local! {
            static IMAGE: $crate::image::Image = $crate::image::Image::new($format);
        }
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            IMAGE.with(|image| image.judge(bytes));
        });
    };
}
