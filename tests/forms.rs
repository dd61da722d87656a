//! The forms of a publication, as threads that need them at the same time get them.

use std::sync::atomic::{AtomicUsize, Ordering};

use umbel::internals::hub::{Kind, Publication};

#[test]
fn all_threads_get_the_same_bytes() {
    let publication = Publication::new(Kind::Text, b"hi", 0);
    let made = AtomicUsize::new(0);
    let (publication, made) = (&publication, &made);
    std::thread::scope(|scope| {
        for start in 0..4u8 {
            scope.spawn(move || {
                for form in (0..40u8).map(|it| 1 + (it + start * 10) % 40) {
                    let bytes = publication.encoded(form, || {
                        made.fetch_add(1, Ordering::Relaxed);
                        [form].into()
                    });
                    assert_eq!(**bytes, [form]);
                }
            });
        }
    });
    assert_eq!(made.load(Ordering::Relaxed), 40);
}
