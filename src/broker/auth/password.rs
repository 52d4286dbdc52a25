//! Whether a password is the one of a hash.
//!
//! Invariant: however many passwords are tried, hashing keeps two pieces of memory and no more. Taken from the allocator anew each time, pieces of
//! 19 MiB at this alignment break up its heap: a few hundred wrong passwords left a gigabyte behind.

use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version, password_hash::phc::Output};
use parking_lot::Mutex;

use super::AT_ONCE;

/// Memory of hashings that are over, at most [`AT_ONCE`] pieces.
static MEMORY: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());

/// Takes tens of milliseconds; a text that is no hash fits no password.
pub(super) fn is_right(hash: &str, password: &[u8]) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    let mut memory = MEMORY.lock().pop().unwrap_or_default();
    let found = hashed(&hash, password, &mut memory);
    let mut pool = MEMORY.lock();
    if pool.len() < AT_ONCE {
        pool.push(memory);
    }
    // `Output` compares in constant time.
    found.is_some() && found == hash.hash
}

/// What a password becomes with the parameters of a hash.
fn hashed(like: &PasswordHash, password: &[u8], memory: &mut Vec<Block>) -> Option<Output> {
    let params = Params::try_from(like).ok()?;
    let version = like.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    if memory.len() < params.block_count() {
        *memory = vec![Block::default(); params.block_count()];
    }
    let argon2 = Argon2::new(Algorithm::try_from(like.algorithm.as_str()).ok()?, version, params);
    let mut room = [0; Output::MAX_LENGTH];
    let out = room.get_mut(..like.hash.as_ref()?.len())?;
    argon2.hash_password_into_with_memory(password, like.salt.as_ref()?, out, memory.as_mut_slice()).ok()?;
    Output::new(out).ok()
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHasher as _;

    use super::*;

    /// The memory of one hashing serves the next, whatever its parameters.
    #[test]
    fn right_and_wrong_with_memory_used_before() {
        let (mut tried, mut right) = (0, 0);
        for cost in [8, 64, 16, 1_024, 8] {
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(cost, 1, 1, None).unwrap());
            let hash = argon2.hash_password(b"geheim").unwrap().to_string();
            for password in ["geheim", "Geheim", ""] {
                right += u32::from(is_right(&hash, password.as_bytes()));
                tried += 1;
            }
            assert!(is_right(&hash, b"geheim"), "{cost}");
        }
        assert_eq!((tried, right), (15, 5));
        assert!(!is_right("geheim", b"geheim"));
        assert!(MEMORY.lock().len() <= AT_ONCE);
    }
}
