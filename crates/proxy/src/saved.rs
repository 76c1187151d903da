//! The last table on disk, from which a restarted proxy goes on.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use evenkeel_core::table::RoutingTable;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

const NAME: &str = "table.json";
const NAME_UNFINISHED: &str = "table.json.new";
/// Of the file; one with another number is not read.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved<T> {
    format: u32,
    table: T,
}

/// Writes the table so that a crash at any moment leaves the old or the new one, whole.
///
/// # Errors
/// The file system's.
pub(crate) fn store(directory: &Path, table: &RoutingTable) -> io::Result<()> {
    let unfinished = directory.join(NAME_UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(&serde_json::to_vec(&Saved { format: FORMAT, table })?)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, directory.join(NAME))?;
    File::open(directory)?.sync_all()
}

/// Reads the table back; an empty one when there is none, or none that can be trusted.
pub(crate) fn load(directory: &Path) -> RoutingTable {
    match read(&directory.join(NAME)) {
        Ok(table) => table,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            info!("no saved routing table, starting empty");
            RoutingTable::default()
        }
        Err(error) => {
            warn!(%error, "saved routing table cannot be used, starting empty");
            RoutingTable::default()
        }
    }
}

fn read(path: &Path) -> io::Result<RoutingTable> {
    let saved: Saved<RoutingTable> = serde_json::from_slice(&std::fs::read(path)?)?;
    if saved.format != FORMAT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("format {} is unknown", saved.format)));
    }
    saved.table.check().map_err(|refused| io::Error::new(io::ErrorKind::InvalidData, refused))?;
    Ok(saved.table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_core::ids::{FencingToken, Generation};

    #[test]
    fn a_stored_table_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let table = RoutingTable { generation: Generation(7), token: FencingToken(3), services: Vec::new() };
        store(directory.path(), &table).unwrap();
        assert_eq!(load(directory.path()), table);
    }

    #[test]
    fn a_torn_or_foreign_file_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        for content in ["", "{", r#"{"format":2,"table":{"generation":1,"token":1,"services":[]}}"#] {
            std::fs::write(directory.path().join(NAME), content).unwrap();
            assert_eq!(load(directory.path()), RoutingTable::default());
        }
    }
}
