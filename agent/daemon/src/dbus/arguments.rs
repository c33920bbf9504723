//! What methods of other services are given.

use zbus::zvariant::{Structure, StructureBuilder};

/// Texts as arguments. One type, however many there are: a call is compiled anew for each, at 7 KB.
///
/// # Errors
/// There is none, which no structure can say.
pub(crate) fn texts<'t>(arguments: &[&'t str]) -> Result<Structure<'t>, String> {
    let mut structure = StructureBuilder::new();
    for argument in arguments {
        structure = structure.add_field(*argument);
    }
    structure.build().map_err(|error| error.to_string())
}
