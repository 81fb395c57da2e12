// How many parts a text takes on the air (3GPP TS 23.038 section 6, TS 23.040 section 9.2.3.24.1).

const BASIC = new Set(
  "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà",
);
const EXTENSION = new Set("\f^{}\\[~]|€");

/** `room` is how many characters the parts in use hold together. */
export function countText(text) {
  const characters = [...text];
  const unicode = !characters.every((c) => BASIC.has(c) || EXTENSION.has(c));
  // Widths that cannot be split over two parts: an escaped character, a surrogate pair.
  const widths = characters.map((c) => (unicode ? c.length : EXTENSION.has(c) ? 2 : 1));
  const used = widths.reduce((sum, width) => sum + width, 0);
  const [single, each] = unicode ? [70, 67] : [160, 153];
  if (used <= single) return { characters: used, room: single, parts: 1, unicode };
  let parts = 1;
  let inPart = 0;
  for (const width of widths) {
    if (inPart + width > each) {
      parts += 1;
      inPart = 0;
    }
    inPart += width;
  }
  return { characters: used, room: parts * each, parts, unicode };
}
