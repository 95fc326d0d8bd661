//! The object graph in TF2 checkpoints: which object has which variable, stored under which key.

use crate::proto::tensor_bundle::ObjectGraph;
use crate::proto::tensor_bundle::object_graph::{Node, node};
use prost::Message;

/// The key of the graph itself.
pub const GRAPH_KEY: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
/// The end of a variable's key.
pub const VALUE: &str = "/.ATTRIBUTES/VARIABLE_VALUE";

/// The objects of a checkpoint.
#[derive(Debug)]
pub struct Objects {
    nodes: Vec<Node>,
}

impl Objects {
    /// Reads a graph; `None` if the bytes are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let nodes = ObjectGraph::decode(bytes).ok()?.nodes;
        (!nodes.is_empty()).then_some(Objects { nodes })
    }

    /// The key under which the variable at a path below the model is stored. Checkpoints of the original name it after the path;
    /// SavedModels may use another path to the same object.
    pub fn key(&self, path: &str) -> Option<String> {
        let root = self.nodes.first()?;
        let mut object = self.child(root, "model").unwrap_or(root);
        for name in path.split('/') {
            object = self.child(object, name)?;
        }
        let value = object
            .attributes
            .iter()
            .find(|a| a.name == "VARIABLE_VALUE");
        value.map(|value| value.checkpoint_key.clone())
    }

    fn child(&self, object: &Node, name: &str) -> Option<&Node> {
        let child = object
            .children
            .iter()
            .find(|child| child.local_name == name)?;
        self.nodes.get(usize::try_from(child.node_id).ok()?)
    }
}

/// Grows a graph from paths.
#[derive(Debug)]
pub struct Grow {
    nodes: Vec<Node>,
}

impl Default for Grow {
    fn default() -> Self {
        Grow {
            nodes: vec![Node::default()],
        }
    }
}

impl Grow {
    /// Adds the variable at a path below the root and gives its key.
    pub fn variable(&mut self, path: &str, full_name: &str) -> String {
        let at = self.object(path);
        self.value(at, full_name, format!("{path}{VALUE}"))
    }

    /// Adds a slot of the variable at a path, kept by the root's object `optimizer`, and gives its key.
    pub fn slot(&mut self, path: &str, slot: &str, full_name: &str) -> String {
        let variable = self.object(path);
        let optimizer = self.object("optimizer");
        let at = self.nodes.len();
        self.nodes.push(Node::default());
        self.nodes[optimizer]
            .slot_variables
            .push(node::SlotVariable {
                original_variable_node_id: variable as i32,
                slot_name: slot.into(),
                slot_variable_node_id: at as i32,
            });
        let key = format!("{path}/.OPTIMIZER_SLOT/optimizer/{slot}{VALUE}");
        self.value(at, full_name, key)
    }

    /// Stores the variable at a path under another key, as SavedModels do.
    #[cfg(test)]
    pub fn rename(&mut self, path: &str, key: String) -> String {
        let at = self.object(path);
        self.nodes[at].attributes[0].checkpoint_key = key.clone();
        key
    }

    /// The graph's bytes.
    pub fn finish(self) -> Vec<u8> {
        ObjectGraph { nodes: self.nodes }.encode_to_vec()
    }

    fn value(&mut self, at: usize, full_name: &str, key: String) -> String {
        self.nodes[at].attributes.push(node::Attribute {
            name: "VARIABLE_VALUE".into(),
            full_name: full_name.into(),
            checkpoint_key: key.clone(),
        });
        key
    }

    fn object(&mut self, path: &str) -> usize {
        let mut at = 0;
        for name in path.split('/') {
            let known = self.nodes[at]
                .children
                .iter()
                .find(|c| c.local_name == name);
            at = match known {
                Some(child) => child.node_id as usize,
                None => {
                    let new = self.nodes.len();
                    self.nodes[at].children.push(node::Child {
                        node_id: new as i32,
                        local_name: name.into(),
                    });
                    self.nodes.push(Node::default());
                    new
                }
            };
        }
        at
    }
}
