//! The fields of a record's body, read one after the other.

use super::Damaged;

/// What is left of a body.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker::store) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or(Damaged::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*chunk)
    }

    pub(in crate::broker::store) fn u8(&mut self) -> Result<u8, Damaged> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    pub(in crate::broker::store) fn u16(&mut self) -> Result<u16, Damaged> {
        self.chunk().map(u16::from_le_bytes)
    }

    pub(in crate::broker::store) fn u32(&mut self) -> Result<u32, Damaged> {
        self.chunk().map(u32::from_le_bytes)
    }

    pub(in crate::broker::store) fn u64(&mut self) -> Result<u64, Damaged> {
        self.chunk().map(u64::from_le_bytes)
    }

    pub(in crate::broker::store) fn flag(&mut self) -> Result<bool, Damaged> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged::Malformed("a flag is neither 0 nor 1")),
        }
    }

    pub(in crate::broker::store) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Damaged::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Bytes behind their length.
    pub(in crate::broker::store) fn blob(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.count()?;
        self.bytes(length)
    }

    pub(in crate::broker::store) fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.blob()?).map_err(|_| Damaged::Malformed("a text is not UTF-8"))
    }

    /// How many of something follow.
    pub(in crate::broker::store) fn count(&mut self) -> Result<usize, Damaged> {
        usize::try_from(self.u32()?).map_err(|_| Damaged::Malformed("a length is out of range"))
    }

    pub(in crate::broker::store) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Damaged>,
    ) -> Result<Option<T>, Damaged> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Nothing may follow.
    pub(in crate::broker::store) fn end(self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged::Malformed("something follows its end")) }
    }
}

/// Writes fields.
pub(in crate::broker::store) mod put {
    /// Bytes behind their length.
    pub(in crate::broker::store) fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
        // MQTT's own limits keep everything that is written this way far below 4 GiB.
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(bytes);
    }

    pub(in crate::broker::store) fn count(out: &mut Vec<u8>, count: usize) {
        out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub(in crate::broker::store) fn option<T>(
        out: &mut Vec<u8>,
        value: Option<T>,
        write: impl FnOnce(&mut Vec<u8>, T),
    ) {
        out.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(out, value);
        }
    }
}
