//! Masking in place: RFC 6455, section 5.3. The same operation masks and unmasks.

/// XORs `payload` with `key`, whose first byte to use is number `phase` (0 to 3; more counts modulo 4).
/// Returns the phase at which the next piece of the same frame goes on.
///
/// Safe code only: the loop over 16-byte chunks becomes vector instructions by itself.
#[inline]
pub fn mask_in_place(payload: &mut [u8], key: [u8; 4], phase: usize) -> usize {
    let next_phase = phase.wrapping_add(payload.len()) % 4;
    let mut key = key;
    key.rotate_left(phase % 4);
    let word = u32::from_ne_bytes(key);
    let wide = {
        let pair = u64::from(word) << 32 | u64::from(word);
        u128::from(pair) << 64 | u128::from(pair)
    };

    let (chunks, rest) = payload.as_chunks_mut::<16>();
    for chunk in chunks {
        *chunk = (u128::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    let (chunks, rest) = rest.as_chunks_mut::<4>();
    for chunk in chunks {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key_byte) in rest.iter_mut().zip(key) {
        *byte ^= key_byte;
    }
    next_phase
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(payload: &mut [u8], key: [u8; 4], phase: usize) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[(phase + i) % 4];
        }
    }

    #[test]
    fn equals_the_byte_loop_for_all_lengths_phases_and_alignments() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let source: Vec<u8> = (0..200u32).map(|i| (i * 7 + 3) as u8).collect();
        for start in 0..16 {
            for length in 0..=160 {
                for phase in 0..4 {
                    let mut fast = source.clone();
                    let mut slow = source.clone();
                    let next = mask_in_place(&mut fast[start..start + length], key, phase);
                    naive(&mut slow[start..start + length], key, phase);
                    assert_eq!(fast, slow);
                    assert_eq!(next, (phase + length) % 4);
                }
            }
        }
    }

    #[test]
    fn pieces_equal_the_whole() {
        let key = [1, 2, 3, 4];
        let mut whole: Vec<u8> = (0..=255).collect();
        let mut pieces = whole.clone();
        mask_in_place(&mut whole, key, 0);
        let mut phase = 0;
        for piece in pieces.chunks_mut(7) {
            phase = mask_in_place(piece, key, phase);
        }
        assert_eq!(whole, pieces);
    }

    #[test]
    fn unmasks_the_example_of_section_5_7() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        mask_in_place(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&payload, b"Hello");
    }
}
