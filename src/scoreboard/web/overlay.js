/**
 * The page `/overlay/{board}`: tells embed.css how many rows there can be, so that they fit the picture.
 *
 * In: `data-rows`. Out: the custom property `--rows`. A style attribute in the page would say the same, but the
 * page's policy forbids those.
 */

const { dataset, style } = document.documentElement;
style.setProperty("--rows", dataset.rows ?? "");
