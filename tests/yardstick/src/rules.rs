//! Rule documents: the shipped ones about program starts, and synthetic ones.

use std::fs;
use std::path::{Path, PathBuf};

/// One YAML document.
#[derive(Clone)]
pub struct Document {
    /// File and position, for messages.
    pub name: String,
    /// The document.
    pub text: String,
}

/// The single-event rules about program starts below `directory`, one document each.
pub fn read(directory: &Path) -> Result<Vec<Document>, String> {
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    files.sort();
    let mut documents = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        for (i, document) in text.split("\n---\n").enumerate() {
            if document.contains("category: process_creation") && document.contains("\ndetection:") {
                documents
                    .push(Document { name: format!("{}#{i}", file.display()), text: document.to_owned() });
            }
        }
    }
    Ok(documents)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            files.push(path);
        }
    }
    Ok(())
}

/// A rule in the shape public rule sets use; each number gives another.
pub fn synthetic(i: usize) -> Document {
    let text = format!(
        "title: Synthetic {i}\nid: synthetic-{i}\nstatus: test\nlogsource:\n  product: linux\n  category: process_creation\ndetection:\n  \
         image:\n    Image|endswith: ['/tool{i}', '/other{i}']\n  arguments:\n    CommandLine|contains|all: ['--option{i}', 'target{}']\n  \
         parent:\n    ParentImage|endswith: '/daemon{i}'\n  filter:\n    CommandLine|contains: 'harmless{i}'\n  \
         condition: ((image and arguments) or (parent and arguments)) and not filter\nlevel: low\n",
        i % 37
    );
    Document { name: format!("synthetic-{i}.yml"), text }
}
