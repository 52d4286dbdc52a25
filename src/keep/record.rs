//! Records: every value of the file, sealed with a CRC32C over the name of its shelf, its key and itself.
//!
//! The database checks its own pages only when it repairs itself; a bit that flipped in a value, or a value that strayed to another key, shows
//! here. Layout: `crc u32 (little endian) | body`.

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, TableHandle,
    WriteTransaction,
};

use super::fault;

/// Why a transaction did not succeed.
pub(super) type Fault = fault::Fault<Damage>;
/// A shelf: a table of bytes.
pub(super) type Definition<'n> = TableDefinition<'n, &'static [u8], &'static [u8]>;
/// The same, open.
pub(super) type Open<'t> = Table<'t, &'static [u8], &'static [u8]>;
/// Keys and bodies, in the order of keys.
pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The format of the file. One of a later format is refused, not set aside.
pub(super) const FORMAT: u8 = 1;
/// The file's own shelf, and the key of its format there.
const OWN: &str = "sense";
const FORMAT_KEY: &[u8] = b"format";

/// What can be wrong with the file's records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// Its bytes are not those that were written.
    #[error("a record of the shelf `{0}` is damaged")]
    Record(String),
    /// The note of the format is not there or says nothing.
    #[error("it does not say what format it has")]
    NoFormat,
    /// A later version of the program wrote it.
    #[error("it has format {0}; this version reads {FORMAT}")]
    Newer(u8),
}

fn checksum(shelf: &str, key: &[u8], body: &[u8]) -> u32 {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes();
    [length.as_slice(), key, body]
        .iter()
        .fold(crc32c::crc32c(shelf.as_bytes()), |crc, part| crc32c::crc32c_append(crc, part))
}

/// Makes a record of a body.
pub(super) fn seal(shelf: &str, key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(4 + body.len());
    record.extend_from_slice(&checksum(shelf, key, body).to_le_bytes());
    record.extend_from_slice(body);
    record
}

/// The body of a record.
pub(super) fn unseal<'a>(shelf: &str, key: &[u8], record: &'a [u8]) -> Result<&'a [u8], Damage> {
    let whole =
        record.split_first_chunk::<4>().filter(|(crc, body)| u32::from_le_bytes(**crc) == checksum(shelf, key, body));
    whole.map(|(_, body)| body).ok_or_else(|| Damage::Record(shelf.to_owned()))
}

/// One write transaction, on disk when this returns.
///
/// # Errors
/// [`Fault`]: none of it is done, or, if the very end failed, perhaps all of it.
pub(super) fn transact<T>(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
) -> Result<T, Fault> {
    // It is small: looking through it after a crash takes less than what every start of a task would wait for.
    let txn = fault::begin(database, false)?;
    let done = work(&txn)?;
    txn.commit()?;
    Ok(done)
}

/// Notes the format of a new file; looks at that of an old one.
pub(super) fn prepare(database: &Database) -> Result<(), Fault> {
    let txn = database.begin_read()?;
    if txn.list_tables()?.next().is_none() {
        drop(txn);
        return transact(database, |txn| {
            let mut own = txn.open_table(Definition::new(OWN))?;
            own.insert(FORMAT_KEY, seal(OWN, FORMAT_KEY, &[FORMAT]).as_slice())?;
            Ok(())
        });
    }
    let noted = read(&txn, OWN)?.into_iter().find(|(key, _)| key == FORMAT_KEY).map(|(_, body)| body);
    match noted.as_deref() {
        Some(&[found]) if found > FORMAT => Err(Fault::Damaged(Damage::Newer(found))),
        Some(&[_]) => Ok(()),
        _ => Err(Fault::Damaged(Damage::NoFormat)),
    }
}

/// Reads everything there is: what is damaged shows at the start, not in the middle of the work.
pub(super) fn verify(database: &Database) -> Result<(), Fault> {
    let txn = database.begin_read()?;
    for shelf in txn.list_tables()? {
        read(&txn, shelf.name())?;
    }
    Ok(())
}

/// All pairs of a shelf.
pub(super) fn read(txn: &ReadTransaction, shelf: &str) -> Result<Pairs, Fault> {
    let table = match txn.open_table(Definition::new(shelf)) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut pairs = Vec::new();
    for entry in table.iter()? {
        let (key, record) = entry?;
        let body = unseal(shelf, key.value(), record.value()).map_err(Fault::Damaged)?;
        pairs.push((key.value().to_vec(), body.to_vec()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_where_it_was_written_and_nowhere_else() {
        let record = seal("a", b"key", b"body");
        assert_eq!(unseal("a", b"key", &record), Ok(b"body".as_slice()));
        assert!(unseal("b", b"key", &record).is_err());
        assert!(unseal("a", b"kez", &record).is_err());
        assert!(unseal("a", b"", &seal("a", b"k", b"")).is_err());
        for at in 0..record.len() {
            let mut flipped = record.clone();
            flipped[at] ^= 1;
            assert!(unseal("a", b"key", &flipped).is_err(), "byte {at}");
            assert!(unseal("a", b"key", &record[..at]).is_err(), "{at} bytes");
        }
        assert_eq!(unseal("a", b"k", &seal("a", b"k", b"")), Ok(b"".as_slice()));
    }
}
