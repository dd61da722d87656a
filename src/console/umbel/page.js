// What the page knows of the network and of sleep.

/**
 * Calls `handleWake` when another attempt is worth while or the connection may have died unseen: the
 * network is back (`isOnline`), or the page is, from sleep or from behind others; and `handleOffline`
 * when the network went. `page` is a window or a worker, or null. The result ends it all.
 */
export function listenToPage(page, handleWake, handleOffline) {
  const document = page?.document;
  const listeners = [
    [page, "online", () => handleWake(true)],
    [page, "offline", handleOffline],
    // From the back/forward cache, and from where the browser froze it.
    [page, "pageshow", ({ persisted }) => persisted && handleWake(false)],
    [document, "resume", () => handleWake(false)],
    [document, "visibilitychange", () => document.visibilityState === "visible" && handleWake(false)],
  ];
  for (const [target, name, handle] of listeners) target?.addEventListener(name, handle);
  return () => {
    for (const [target, name, handle] of listeners) target?.removeEventListener(name, handle);
  };
}
