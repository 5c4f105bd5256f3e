// The contrast of every text that can be seen, by WCAG 2.2 (1.4.3): those that fall short, with their ratio.
window.contrasts = () => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const luminance = (color) => {
    const [r, g, b] = color.map((each) => (each /= 255) <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) layers.unshift(parse(getComputedStyle(each).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const seen = { least: 99, count: 0, short: [] };
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim()) || element.value;
    const box = element.getBoundingClientRect();
    if (!own || !element.getClientRects().length || box.width <= 1 || element.closest(".sr, script, style, [hidden]")) continue;
    const style = getComputedStyle(element), svg = element.namespaceURI.endsWith("svg"), ground = behind(element);
    const color = over(parse(svg ? style.fill : style.color), ground);
    const [light, dark] = [luminance(color), luminance(ground)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05), size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    seen.count += 1;
    seen.least = Math.min(seen.least, ratio);
    if (ratio < wanted) seen.short.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className.baseVal ?? element.className} ${element.textContent.slice(0, 40)}`);
  }
  return seen;
};

// What reaches beyond the right edge of the window and cannot be scrolled on its own.
window.outside = () => [...document.querySelectorAll("main *, header *")]
  .filter((each) => !each.closest(".sr, thead, pre") && each.getClientRects().length)
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
  .map((each) => each.outerHTML.slice(0, 80));
