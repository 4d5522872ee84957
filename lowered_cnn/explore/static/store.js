// The state of the page: one object, and who wants to know when a part of it changes.

/** Return a store: `state`, `set(changes)` and `on(names, listener)`, which returns what ends the listening. */
export function createStore(state) {
  const listeners = new Set();
  return {
    state,
    set(changes) {
      const names = Object.keys(changes).filter((name) => state[name] !== changes[name]);
      Object.assign(state, changes);
      if (names.length) for (const { wanted, listener } of [...listeners]) if (names.some((n) => wanted.includes(n))) listener(state);
    },
    on(wanted, listener) {
      const entry = { wanted, listener };
      listeners.add(entry);
      return () => listeners.delete(entry);
    },
  };
}
