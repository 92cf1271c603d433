"use strict";
// How sizes and times are said on every page; the server says them so too (units.py).
const inWords = {
  size(count) {
    if (count < 1024) return count === 1 ? "1 byte" : `${count} bytes`;
    let amount = count, unit = -1;
    while (amount >= 1024 && unit < 3) { amount /= 1024; unit += 1; }
    return `${amount.toFixed(amount < 10 ? 2 : amount < 100 ? 1 : 0)} ${["KiB", "MiB", "GiB", "TiB"][unit]}`;
  },
  speed: (bytes) => `${(bytes / 1e6).toFixed(1)} MB/s`,
  took(seconds) {
    if (seconds < 1) return `${(seconds * 1000).toFixed(0)} ms`;
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    const all = Math.round(seconds), minutes = Math.floor(all / 60);
    return minutes < 60 ? `${minutes} min ${all % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  },
  // A time that is left, no finer than it is known.
  about(seconds) {
    if (seconds < 60) return `${seconds} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  },
};
