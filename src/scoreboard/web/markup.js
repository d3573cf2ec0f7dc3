/**
 * Elements, made one by one: no markup is ever parsed, so nothing that users wrote can become markup, and the
 * strictest content security policy (trusted types included) has nothing to forbid.
 */

/**
 * @param {string} tag
 * @param {Record<string, string | boolean>} [attributes] `true` sets an empty one, `false` none
 * @param {...(Node | string)} children
 */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** Touches the page only if there is something to change: what moves or is read out stays undisturbed. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
