//! Places frames, boxes, buses and cables, then names who shares a VLAN.

use std::collections::BTreeMap;

use super::canvas::{Canvas, Pen};
use super::rows::{VfRow, rows};
use super::{Cable, Machine, Spot, TopologyError, find};
use crate::ui::Style;
use crate::view::PfView;

const FRAME: Pen = Pen {
    round: true,
    style: Style::Dim,
};
const BOX: Pen = Pen {
    round: false,
    style: Style::Plain,
};
const CABLE: Pen = Pen {
    round: true,
    style: Style::Good,
};

/// Lines of text in the box of a PF.
const BOX_LINES: usize = 3;

/// What stands in a machine that has no PF, and beside a PF that has no VF.
const NO_PFS: &str = "no SR-IOV devices";
const NO_VFS: &str = "no VFs";

/// Column of the text in a frame.
const MARGIN: usize = 3;

/// One PF, made ready to be placed.
struct Block {
    rows: Vec<VfRow>,
    lines: [String; BOX_LINES],
    link_up: bool,
}

impl Block {
    /// Rows of the drawing that the block takes: the box, or the VFs if they are more.
    fn height(&self) -> usize {
        (BOX_LINES + 2).max(self.rows.len() + 1)
    }
}

/// Widths of the columns, the same in all machines so that their ports are in one line.
#[derive(Default)]
struct Columns {
    holder: usize,
    interface: usize,
    label: usize,
    tags: usize,
    pf: usize,
}

/// Draws machines and the cables between their PFs.
///
/// The text has ANSI colours, for a stream that strips them where they are not wanted.
pub(crate) fn draw(
    machines: &[Machine],
    cables: &[Cable],
    unicode: bool,
) -> Result<String, TopologyError> {
    let ends = cables
        .iter()
        .map(|cable| Ok((find(machines, &cable.a)?, find(machines, &cable.b)?)))
        .collect::<Result<Vec<(Spot, Spot)>, TopologyError>>()?;
    let blocks: Vec<Vec<Block>> = machines
        .iter()
        .map(|machine| machine.pfs().iter().map(block).collect())
        .collect();
    let columns = columns(machines, &blocks);
    let vlans = vlan_styles(&blocks);

    let mut canvas = Canvas::default();
    let mut ports = BTreeMap::new();
    let mut top = 0;
    for (at, (machine, blocks)) in machines.iter().zip(&blocks).enumerate() {
        let inside: usize = blocks.iter().map(Block::height).sum();
        let bottom = top + inside.max(1) + 1;
        canvas.frame((top, 0), (bottom, columns.right()), FRAME);
        canvas.text(top, 2, &format!(" {} ", machine.name), Style::Bold);
        if blocks.is_empty() {
            canvas.text(top + 1, MARGIN, NO_PFS, Style::Dim);
        }
        let mut row = top + 1;
        for (pf, block) in blocks.iter().enumerate() {
            place(&mut canvas, row, block, &columns, &vlans);
            ports.insert((at, pf), row + 2);
            row += block.height();
        }
        top = bottom + if cables.is_empty() { 1 } else { 2 };
    }
    plug(&mut canvas, &columns, &blocks, &ports, &ends);

    let mut text = canvas.render(unicode);
    text.push_str(&segments(machines, &blocks, &ends, &vlans, unicode));
    Ok(text)
}

fn block(pf: &PfView) -> Block {
    let netdev = pf.netdev.as_ref();
    let mut second = vec![pf.driver.clone().unwrap_or_else(|| "no driver".to_owned())];
    match netdev {
        Some(netdev) => {
            let speed = netdev.speed_mbps.map_or_else(String::new, |mbps| {
                if mbps % 1000 == 0 {
                    format!(" {}G", mbps / 1000)
                } else {
                    format!(" {mbps}M")
                }
            });
            second.push(format!("{}{speed}", netdev.state));
            if netdev.mtu != 1500 {
                second.push(format!("mtu {}", netdev.mtu));
            }
        }
        None => second.extend(
            pf.class
                .name
                .clone()
                .filter(|name| pf.driver.as_ref() != Some(name)),
        ),
    }
    let mut third = vec![format!("{} of {} VFs", pf.num_vfs, pf.total_vfs)];
    third.extend(pf.eswitch_mode.clone());
    let first = match netdev {
        Some(netdev) => format!("{}  {}", netdev.name, pf.address),
        None => pf.address.to_string(),
    };
    Block {
        rows: rows(pf),
        lines: [first, second.join(" · "), third.join(" · ")],
        link_up: netdev.is_some_and(|netdev| netdev.state == "up"),
    }
}

fn columns(machines: &[Machine], blocks: &[Vec<Block>]) -> Columns {
    let mut columns = Columns::default();
    let grow = |width: &mut usize, text: &str| *width = (*width).max(text.chars().count());
    for block in blocks.iter().flatten() {
        for line in &block.lines {
            grow(&mut columns.pf, line);
        }
        if block.rows.is_empty() {
            grow(&mut columns.holder, NO_VFS);
        }
        for row in &block.rows {
            grow(&mut columns.holder, &row.holder);
            grow(&mut columns.interface, &row.interface);
            grow(&mut columns.label, &row.label);
            grow(&mut columns.tags, &row.tags);
        }
    }
    // A frame has room for its machine's name, and for saying that nothing is in it.
    let name = machines.iter().map(|m| m.name.chars().count()).max();
    let least = (name.unwrap_or(0) + 6).max(MARGIN + NO_PFS.len() + 2);
    columns.holder += least.saturating_sub(columns.right());
    columns
}

impl Columns {
    fn interface_at(&self) -> usize {
        MARGIN + self.holder + gap(self.holder)
    }

    fn label_at(&self) -> usize {
        self.interface_at() + self.interface + gap(self.interface)
    }

    fn tags_at(&self) -> usize {
        self.label_at() + self.label + gap(self.label)
    }

    /// Column of the line that joins the VFs of a PF.
    fn bus(&self) -> usize {
        self.tags_at() + self.tags + gap(self.tags)
    }

    fn box_left(&self) -> usize {
        self.bus() + 3
    }

    fn box_right(&self) -> usize {
        self.box_left() + self.pf + 3
    }

    /// Column of the right border of the machines.
    fn right(&self) -> usize {
        self.box_right() + 3
    }
}

/// Columns that nobody fills take no room.
fn gap(width: usize) -> usize {
    if width == 0 { 0 } else { 2 }
}

fn place(
    canvas: &mut Canvas,
    top: usize,
    block: &Block,
    columns: &Columns,
    vlans: &BTreeMap<u16, Style>,
) {
    let (left, right) = (columns.box_left(), columns.box_right());
    canvas.frame((top, left), (top + BOX_LINES + 1, right), BOX);
    let [first, second, third] = &block.lines;
    canvas.text(top + 1, left + 2, first, Style::Bold);
    let second_style = if block.link_up {
        Style::Good
    } else {
        Style::Plain
    };
    canvas.text(top + 2, left + 2, second, second_style);
    canvas.text(top + 3, left + 2, third, Style::Plain);
    if block.rows.is_empty() {
        canvas.text(top + 1, MARGIN, NO_VFS, Style::Dim);
        return;
    }
    for (offset, row) in block.rows.iter().enumerate() {
        let at = top + 1 + offset;
        let style = match row.vlan.and_then(|vlan| vlans.get(&vlan)) {
            Some(style) => *style,
            None if row.held => Style::Plain,
            None => Style::Dim,
        };
        canvas.text(at, MARGIN, &row.holder, style);
        canvas.text(at, columns.interface_at(), &row.interface, style);
        canvas.text(at, columns.label_at(), &row.label, style);
        canvas.text(at, columns.tags_at(), &row.tags, style);
        let end = if row.tags.is_empty() {
            columns.label_at() + row.label.chars().count()
        } else {
            columns.tags_at() + row.tags.chars().count()
        };
        canvas.across(
            at,
            end + 1,
            columns.bus(),
            Pen {
                round: false,
                style,
            },
        );
    }
    canvas.across(top + 1, columns.bus(), left, BOX);
    canvas.down(columns.bus(), top + 1, top + block.rows.len(), BOX);
}

/// Draws the cables in lanes right of the frames, short ones inside, and a stub at ports whose link
/// is up with nothing known behind it.
fn plug(
    canvas: &mut Canvas,
    columns: &Columns,
    blocks: &[Vec<Block>],
    ports: &BTreeMap<Spot, usize>,
    ends: &[(Spot, Spot)],
) {
    let mut spans: Vec<(usize, usize)> = ends
        .iter()
        .filter_map(|(a, b)| {
            let (a, b) = (*ports.get(a)?, *ports.get(b)?);
            Some((a.min(b), a.max(b)))
        })
        .collect();
    spans.sort_by_key(|(from, to)| (to - from, *from));
    for (lane, (from, to)) in spans.iter().enumerate() {
        let column = columns.right() + 2 + 2 * lane;
        canvas.across(*from, columns.box_right(), column, CABLE);
        canvas.across(*to, columns.box_right(), column, CABLE);
        canvas.down(column, *from, *to, CABLE);
    }
    for (spot, row) in ports {
        let up = blocks
            .get(spot.0)
            .and_then(|blocks| blocks.get(spot.1))
            .is_some_and(|block| block.link_up);
        let plugged = ends.iter().any(|(a, b)| a == spot || b == spot);
        if up && !plugged {
            canvas.across(*row, columns.box_right(), columns.right() + 2, CABLE);
        }
    }
}

/// Gives each VLAN in use a colour, by id.
fn vlan_styles(blocks: &[Vec<Block>]) -> BTreeMap<u16, Style> {
    let mut vlans: BTreeMap<u16, Style> = blocks
        .iter()
        .flatten()
        .flat_map(|block| &block.rows)
        .filter_map(|row| Some((row.vlan.filter(|&vlan| vlan != 0)?, Style::Plain)))
        .collect();
    for (at, style) in vlans.values_mut().enumerate() {
        *style = Style::Group(at);
    }
    vlans
}

/// Names, for each set of joined PFs and each VLAN, the holders that share it.
fn segments(
    machines: &[Machine],
    blocks: &[Vec<Block>],
    ends: &[(Spot, Spot)],
    vlans: &BTreeMap<u16, Style>,
    unicode: bool,
) -> String {
    let mut shared: BTreeMap<(u16, Spot), Vec<String>> = BTreeMap::new();
    for (at, (machine, blocks)) in machines.iter().zip(blocks).enumerate() {
        for (pf, block) in blocks.iter().enumerate() {
            let segment = root_of((at, pf), ends);
            for row in block.rows.iter().filter(|row| row.held) {
                if let Some(vlan) = row.vlan {
                    let name = format!("{} {}", machine.name, row.holder);
                    shared.entry((vlan, segment)).or_default().push(name);
                }
            }
        }
    }
    let line = if unicode { " ── " } else { " -- " };
    let mut text = String::new();
    for ((vlan, _), members) in &shared {
        let name = match vlan {
            0 => "no vlan".to_owned(),
            vlan => format!("vlan {vlan}"),
        };
        let style = vlans.get(vlan).copied().unwrap_or(Style::Plain);
        let painted = style.paint(format_args!("{name:<9}  {}", members.join(line)));
        text.push_str(&format!("   {painted}\n"));
    }
    text
}

/// Returns the first PF of the set of joined PFs that `spot` is in.
fn root_of(spot: Spot, ends: &[(Spot, Spot)]) -> Spot {
    let mut set = vec![spot];
    let mut at = 0;
    while let Some(&next) = set.get(at) {
        for &(a, b) in ends {
            for (from, to) in [(a, b), (b, a)] {
                if from == next && !set.contains(&to) {
                    set.push(to);
                }
            }
        }
        at += 1;
    }
    set.into_iter().min().unwrap_or(spot)
}
