//! Bytes that must not outlive their use: wiped when dropped, `[redacted]` when printed.
//!
//! Used by `vault` for the master key. There is no `Clone`, no comparison and no serialisation:
//! whoever needs the bytes calls [`SecretBytes::expose`], which is easy to find in a review.

use std::fmt;

use zeroize::Zeroize;

/// `N` secret bytes on the heap, so that moving the value leaves no copies on the stack.
pub struct SecretBytes<const N: usize>(Box<[u8; N]>);

impl<const N: usize> SecretBytes<N> {
    /// All zero, to be filled through [`SecretBytes::expose_mut`].
    pub fn zeroed() -> SecretBytes<N> {
        SecretBytes(Box::new([0; N]))
    }

    /// A copy of `bytes`; the caller wipes the original.
    pub fn copied_from(bytes: &[u8; N]) -> SecretBytes<N> {
        let mut secret = SecretBytes::zeroed();
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// The bytes, to read.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes, to fill.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for SecretBytes<N> {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl<const N: usize> fmt::Debug for SecretBytes<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretBytes;

    #[test]
    fn prints_nothing_of_itself() {
        let secret = SecretBytes::copied_from(&[0xab; 4]);
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(format!("{:?}", Some(&secret)), "Some([redacted])");
        assert_eq!(secret.expose(), &[0xab; 4]);
    }
}
